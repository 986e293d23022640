"""Are the pseudo-labels that a threshold keeps right? Measured on labeled images that training has not seen.
How pseudo-labels are made in training is in `pos_hf.methods`."""

from collections.abc import Sequence

import torch
from torch import Tensor

PRECISION_SHARE = 0.9
"""Alarm below this share of the best precision so far."""
COVERAGE_SHARE = 0.5
"""Alarm below this share of the largest coverage so far."""


def keep_confident(
    predictions_NHW: Tensor, confidences_NHW: Tensor, threshold: float, num_classes: int
) -> Tensor:
    """Predictions with every pixel below the threshold turned into the id `num_classes`, which is no class.

    Args:
        predictions_NHW: Class ids, int64 [N, H, W].
        confidences_NHW: Probability of the predicted class, float [N, H, W].
        threshold: Confidence that a pseudo-label needs.
        num_classes: Number of classes C.

    Returns:
        int64 [N, H, W], for `ConfusionMatrix.update`.
    """
    return torch.where(confidences_NHW >= threshold, predictions_NHW, num_classes)


def pseudo_label_quality(counts: Tensor, id2label: dict[int, str]) -> dict:
    """Precision and coverage of kept pseudo-labels.

    Args:
        counts: Confusion counts of `keep_confident` predictions, int64 [C+1, C+1]; the last column holds what
            was not kept.
        id2label: Name of each class.

    Returns:
        precision (share of the kept pixels that are right), coverage (share of the pixels that are kept) and
        both per class as {name: float}: of the pixels kept as a class those that are it, of the pixels of a
        class those kept as anything.
    """
    table = counts.double().cpu()[:-1]
    kept, right = table[:, :-1], table.diagonal()
    names = [id2label[i] for i in range(len(id2label))]
    precision, coverage = right / kept.sum(0), kept.sum(1) / table.sum(1)
    return {
        "precision": (right.sum() / kept.sum()).item(),
        "coverage": (kept.sum() / table.sum()).item(),
        "per_category_precision": dict(zip(names, precision.tolist(), strict=True)),
        "per_category_coverage": dict(zip(names, coverage.tolist(), strict=True)),
    }


def collapse_alarm(precisions: Sequence[float], coverages: Sequence[float]) -> str | None:
    """Say when pseudo-labels have become worse, as in training that confirms its own mistakes.

    Args:
        precisions: Precision at each evaluation so far, the latest last; NaN where nothing was kept.
        coverages: Coverage at the same evaluations.

    Returns:
        A sentence for the log, or None.
    """
    best = max((value for value in precisions if value == value), default=0.0)
    if precisions and precisions[-1] < PRECISION_SHARE * best:
        return (
            f"Pseudo-labels may be collapsing: {100 * precisions[-1]:.0f} % of the kept pixels are right, "
            f"after {100 * best:.0f} % earlier. Raise the threshold or lower the learning rate."
        )
    if coverages and coverages[-1] < COVERAGE_SHARE * max(coverages):
        return (
            f"Pseudo-labels may be collapsing: {100 * coverages[-1]:.0f} % of the pixels are kept, "
            f"after {100 * max(coverages):.0f} % earlier. Lower the threshold or the learning rate."
        )
    return None
