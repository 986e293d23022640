"""What one pass over a labeled data set measured: counts while it runs, scores and files when it is done. The
loop is in `evaluator`."""

import json
import math
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedModel

from pos_hf.errors import TrainingStopped
from pos_hf.evaluation.boundaries import boundary_areas
from pos_hf.evaluation.calibration import BINS, calibration_counts, expected_calibration_error
from pos_hf.evaluation.inference import Inference, Strip, patch_size
from pos_hf.evaluation.metrics import ConfusionMatrix, areas, class_iou, scores
from pos_hf.evaluation.pseudo_labels import PseudoLabeler, pseudo_label_quality
from pos_hf.files import written_aside
from pos_hf.run_folder import COUNTS_FILE, SCORES_FILE
from pos_hf.values import IGNORE_INDEX
from pos_hf.version import __version__


class Prediction(NamedTuple):
    """What is drawn of one image, on the CPU."""

    labels: np.ndarray
    """Class ids, uint8 [H, W]."""
    confidence: np.ndarray
    """Probability of that class in 255ths, uint8 [H, W]."""
    pseudo_labels: np.ndarray
    """Class ids, 255 where none is kept, uint8 [H, W]; all 255 without a pseudo-labeler."""


class Evaluation:
    """Counts of an evaluation, all integers, so that batches and ranks add up exactly in any order.

    Args:
        ids: Id of each image.
        id2label: Name of each class.
        device: Where the counts live until `finish`.
        detailed: Also measure boundary IoU and calibration.
        pseudo_labeler: Also measure the pseudo-labels that it keeps.
        keep: Positions of the images whose predictions are kept.
    """

    def __init__(
        self,
        ids: list[str],
        id2label: dict[int, str],
        device: torch.device | str = "cpu",
        *,
        detailed: bool = False,
        pseudo_labeler: PseudoLabeler | None = None,
        keep: Collection[int] = (),
    ) -> None:
        num_classes = len(id2label)
        self.ids = ids
        self.id2label = id2label
        self.detailed = detailed
        self.pseudo_labeler = pseudo_labeler
        self.keep = keep
        self.predictions: dict[int, Prediction] = {}
        """By position."""
        self.confusion = ConfusionMatrix(num_classes, device=device)
        """All images together."""
        self.kept = ConfusionMatrix(num_classes, device=device)
        """Kept pseudo-labels; all other pixels are in the last column."""
        self.image_areas = torch.zeros(len(ids), 3, num_classes, dtype=torch.int64, device=device)
        """Intersection, predicted and labeled pixels of each image and class, int64 [N, 3, C]."""
        self.boundary = torch.zeros(3, num_classes, dtype=torch.int64, device=device)
        self.calibration = torch.zeros(3, BINS, dtype=torch.int64, device=device)
        self.not_finite = torch.zeros((), dtype=torch.int64, device=device)
        """Batches with a probability that is not finite."""

    def add(self, indices: list[int], strips: Iterable[Strip], labels_NHW: Tensor) -> None:
        """Count a batch of images.

        Args:
            indices: Position of each image among `ids`.
            strips: Class probabilities at native size, all rows in order.
            labels_NHW: Class ids or 255, uint8 [N, H, W].
        """
        maps = []
        kept: dict[int, list[Prediction]] = {i: [] for i, index in enumerate(indices) if index in self.keep}
        for top, probabilities in strips:
            confidences, predictions = probabilities.max(1)
            self.not_finite += ~confidences.isfinite().all()
            confidences = confidences.nan_to_num()  # which are no index of a bin
            labels = labels_NHW[:, top : top + probabilities.shape[-2]]
            self.image_areas[indices] += areas(self.confusion.update(predictions, labels))
            if self.detailed:
                self.calibration += calibration_counts(confidences, predictions, labels)
                maps.append(predictions.to(torch.uint8))
            pseudo_labels = torch.full_like(predictions, IGNORE_INDEX)
            if self.pseudo_labeler:
                pseudo_labels = self.pseudo_labeler(probabilities)
                self.kept.update(pseudo_labels, labels)
            for i, parts in kept.items():
                is_dropped = pseudo_labels[i] == len(self.id2label)
                drawn = predictions[i], 255 * confidences[i], pseudo_labels[i].masked_fill(is_dropped, 255)
                parts.append(Prediction(*(part.byte().cpu().numpy() for part in drawn)))
            del probabilities, confidences  # before the next strip is made
        for i, parts in kept.items():
            self.predictions[indices[i]] = Prediction(*map(np.concatenate, zip(*parts, strict=True)))
        if self.detailed:
            # a band of the whole image, which strips would cut
            self.boundary += boundary_areas(torch.cat(maps, 1), labels_NHW, len(self.id2label))

    def finish(self, accelerator: Accelerator | None) -> "Evaluation":
        """Add up the counts of all processes in one reduction and bring them, and what is kept, to each.

        Raises:
            TrainingStopped: the model's probabilities are not finite.
        """
        counts = [self.confusion.counts, self.kept.counts, self.image_areas, self.boundary, self.calibration]
        counts.append(self.not_finite)
        if accelerator:
            if self.keep:
                self.predictions = dict(gather_object(list(self.predictions.items())))
            flat = accelerator.reduce(torch.cat([count.flatten() for count in counts]), "sum")
            counts = [
                part.view_as(count)
                for part, count in zip(flat.split([count.numel() for count in counts]), counts, strict=True)
            ]
        *counts, not_finite = (count.cpu() for count in counts)
        if not_finite:
            raise TrainingStopped(
                "the model predicts probabilities that are not finite, so that there is nothing to score: go "
                "back to an earlier checkpoint, with a lower learning_rate"
            )
        self.confusion.counts, self.kept.counts, self.image_areas, self.boundary, self.calibration = counts
        return self

    def scores(self) -> dict:
        """The scores of `metrics.scores`.

        With `detailed` also boundary_iou (absent classes skipped), per_category_boundary_iou and
        expected_calibration_error; with a pseudo-labeler also pseudo_labels, see `pseudo_label_quality`.
        """
        result = scores(self.confusion.counts, self.id2label)
        if self.detailed:
            boundary = class_iou(self.boundary)
            result["boundary_iou"] = boundary.nanmean().item()
            result["per_category_boundary_iou"] = dict(
                zip(result["per_category_iou"], boundary.tolist(), strict=True)
            )
            result["expected_calibration_error"] = expected_calibration_error(self.calibration)
        if self.pseudo_labeler:
            result["pseudo_labels"] = pseudo_label_quality(self.kept.counts, self.id2label)
        return result

    def save(self, folder: Path, protocol: dict[str, Any]) -> None:
        """Write metrics.json (scores, image count, protocol) and per_image.npz (what intervals need).

        Args:
            folder: An existing folder; the two files are replaced.
            protocol: Everything a reader must know to compare the numbers, JSON-serialisable.
        """
        report = {**_without_nan(self.scores()), "images": len(self.ids), "protocol": protocol}
        with written_aside(folder) as aside:
            (aside / SCORES_FILE).write_text(json.dumps(report, indent=2) + "\n")
            np.savez_compressed(
                aside / COUNTS_FILE, ids=np.array(self.ids, dtype=str), areas=self.image_areas.numpy()
            )


def protocol(model: PreTrainedModel, inference: Inference | None = None, **facts: Any) -> dict[str, Any]:
    """How numbers were made: what a reader must know before comparing them with others.

    Args:
        model: The evaluated model.
        inference: The inference of the evaluation; the whole image by default.
        facts: What only the caller knows, for example data set, split hash, seed and steps.

    Returns:
        JSON-serialisable, for `Evaluation.save`.
    """
    inference = inference or Inference()
    return {
        **facts,
        **asdict(inference),
        "multiple": inference.multiple or patch_size(model),
        "ignore_index": IGNORE_INDEX,
        "absent_classes": "skipped in mean_iou, 0 in mean_iou_absent_zero",
        "versions": {
            "pos_hf": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: the score of an absent class is written as null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
