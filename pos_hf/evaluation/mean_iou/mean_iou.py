"""The `mean_iou` metric for the `evaluate` library, counted by our confusion matrix; loads offline.

`evaluate.load(pos_hf.evaluation.MEAN_IOU)` gives the arguments, keys and numbers of the published `mean_iou`
without its round trip of every map through Arrow. One import a line: `evaluate` scans them with a regular
expression.
"""

from collections.abc import Iterable
from typing import Any

import datasets
import evaluate
import numpy as np
import torch

from pos_hf.evaluation import metrics
from pos_hf.values import IGNORE_INDEX

KEYS = ("mean_iou", "mean_accuracy", "overall_accuracy")
CLASS_KEYS = ("per_category_iou", "per_category_accuracy")


class MeanIoU(evaluate.Metric):
    """Mean intersection over union over a data set, absent classes skipped. Works in one process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._maps: list[tuple[np.ndarray, np.ndarray]] = []

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean intersection over union of segmentation maps.",
            citation="",
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    def add(self, *, prediction: np.ndarray, reference: np.ndarray, **unused: Any) -> None:
        """Keep one pair of maps, integer [H, W], until `compute`."""
        self._maps.append((np.asarray(prediction), np.asarray(reference)))

    def add_batch(
        self, *, predictions: Iterable[np.ndarray], references: Iterable[np.ndarray], **unused: Any
    ) -> None:
        """Keep pairs of maps, integer [H, W] each, until `compute`."""
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def compute(
        self,
        *,
        num_labels: int,
        ignore_index: int,
        predictions: Iterable[np.ndarray] | None = None,
        references: Iterable[np.ndarray] | None = None,
        nan_to_num: float | None = None,
        label_map: dict[int, int] | None = None,
        reduce_labels: bool = False,
    ) -> dict[str, Any]:
        """Count the maps given and those added, and forget them.

        Args:
            num_labels: Number of classes C.
            ignore_index: Label of the pixels that count nowhere, after `reduce_labels`.
            predictions: Integer maps [H, W].
            references: Integer maps [H, W].
            nan_to_num: Value for absent classes, and for the scores where every class is absent.
            label_map: Labels to be replaced by others, all at once; the published code replaces one after
                the other, so that `{1: 0, 0: 2}` takes 1 to 2 there.
            reduce_labels: Label 0 becomes 255, every other label one less.

        Returns:
            mean_iou, mean_accuracy, overall_accuracy (floats), per_category_iou, per_category_accuracy
            (float64 [C]).
        """
        if predictions is not None and references is not None:
            self.add_batch(predictions=predictions, references=references)
        matrix = metrics.ConfusionMatrix(num_labels, ignore_index)
        for prediction, reference in self._maps:
            labels = _remap(reference, label_map or {}, reduce_labels)
            matrix.update(_ids(prediction)[None], _ids(labels)[None])
        self._maps.clear()
        result = metrics.scores(matrix.counts, dict(enumerate(map(str, range(num_labels)))))
        values = {key: result[key] for key in KEYS}
        values |= {key: np.array(list(result[key].values())) for key in CLASS_KEYS}
        if nan_to_num is None:
            return values
        return {key: np.nan_to_num(value, nan=nan_to_num) for key, value in values.items()}


def _remap(labels: np.ndarray, label_map: dict[int, int], reduce_labels: bool) -> np.ndarray:
    mapped = labels.copy()
    for old, new in label_map.items():
        mapped[labels == old] = new
    if reduce_labels:
        mapped = np.where((mapped == 0) | (mapped == IGNORE_INDEX), IGNORE_INDEX, mapped.astype(np.int64) - 1)
    return mapped


def _ids(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32, copy=False))
