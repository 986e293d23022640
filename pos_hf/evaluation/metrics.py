"""Scores from a confusion matrix kept on the device. How predictions are made is in `inference`, the loop
over images in `evaluator`."""

import torch
from torch import Tensor

from pos_hf.values import IGNORE_INDEX


class ConfusionMatrix:
    """Count every (label, prediction) pair of the pixels that are not ignored.

    Ignored pixels fall into an extra bucket that is cut off, which costs one pass and no boolean mask. Ids
    that are no class are kept in one more row (labels) and column (predictions): a pixel predicted as "no
    class" still counts in its label's area, as in the published `mean_iou` metric.

    Args:
        num_classes: Number of classes C.
        ignore_index: Label of the pixels that count nowhere.
        device: Where the counts live; the maps given to `update` must be there.
    """

    def __init__(
        self, num_classes: int, ignore_index: int = IGNORE_INDEX, device: torch.device | str = "cpu"
    ) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64, device=device)

    def update(self, predictions_NHW: Tensor, labels_NHW: Tensor) -> Tensor:
        """Add a batch of maps.

        Args:
            predictions_NHW: Integer class ids, [N, H, W].
            labels_NHW: Integer class ids or `ignore_index`, [N, H, W].

        Returns:
            The counts of each image, int64 [N, C+1, C+1], rows = label, columns = prediction.
        """
        num_images, side = len(labels_NHW), self.num_classes + 1
        bucket = _index(labels_NHW, self.num_classes) * side + _index(predictions_NHW, self.num_classes)
        bucket = bucket.masked_fill_(labels_NHW == self.ignore_index, side * side).flatten(1)
        offsets = torch.arange(num_images, dtype=torch.int32, device=bucket.device)[:, None] * (
            side * side + 1
        )
        counts = torch.bincount((bucket + offsets).flatten(), minlength=num_images * (side * side + 1))
        counts = counts.view(num_images, -1)[:, :-1].view(num_images, side, side)
        self.counts += counts.sum(0)
        return counts


def _index(ids: Tensor, num_classes: int) -> Tensor:
    """Class ids as int32 (half the traffic of int64), everything that is no class as `num_classes`."""
    without_sign = ids.to(torch.int32) & 0x7FFFFFFF  # a negative id becomes a huge one
    return without_sign.clamp_(max=num_classes)


def areas(counts: Tensor) -> Tensor:
    """The three pixel counts every IoU is made of.

    Args:
        counts: Confusion counts, int64 [..., C+1, C+1].

    Returns:
        int64 [..., 3, C]: intersection, predicted area and labeled area of each class.
    """
    intersection = counts.diagonal(dim1=-2, dim2=-1)
    return torch.stack([intersection, counts.sum(-2), counts.sum(-1)], -2)[..., :-1]


def class_iou(areas: Tensor) -> Tensor:
    """IoU of each class, float64 [..., C] from int64 [..., 3, C] of `areas`; NaN where a class is absent."""
    intersection, predicted, labeled = areas.double().cpu().unbind(-2)
    return intersection / (predicted + labeled - intersection)


def scores(counts: Tensor, id2label: dict[int, str]) -> dict:
    """Every score of a confusion matrix, computed in float64.

    `mean_iou` skips the classes that occur neither in the labels nor in the predictions (the published
    `mean_iou` metric); `mean_iou_absent_zero` counts them as 0 (the published UniMatch code).

    Args:
        counts: Confusion counts, int64 [C+1, C+1].
        id2label: Name of each class id 0..C-1.

    Returns:
        mean_iou, mean_iou_absent_zero, mean_accuracy, overall_accuracy, frequency_weighted_iou as floats in
        [0, 1], and per_category_iou, per_category_accuracy as {name: float}; NaN where a class is absent.
    """
    intersection, _, labeled = areas(counts).double().cpu()
    iou = class_iou(areas(counts))
    accuracy = intersection / labeled
    names = [id2label[i] for i in range(len(id2label))]
    return {
        "mean_iou": iou.nanmean().item(),
        "mean_iou_absent_zero": iou.nan_to_num(0.0).mean().item(),
        "mean_accuracy": accuracy.nanmean().item(),
        "overall_accuracy": (intersection.sum() / labeled.sum()).item(),
        "frequency_weighted_iou": ((labeled * iou.nan_to_num(0.0)).sum() / labeled.sum()).item(),
        "per_category_iou": dict(zip(names, iou.tolist(), strict=True)),
        "per_category_accuracy": dict(zip(names, accuracy.tolist(), strict=True)),
    }
