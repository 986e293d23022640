"""How far the model's confidences can be believed: expected calibration error, from counts kept on the
device."""

import torch
from torch import Tensor

from pos_hf.values import IGNORE_INDEX

BINS = 15
UNITS = 2**20
"""Confidences are summed as integers of this unit, so that sums do not depend on their order."""


def calibration_counts(confidences_NHW: Tensor, predictions_NHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """Pixels, summed confidence and hits of each confidence bin; they add up over batches and ranks.

    Args:
        confidences_NHW: Probability of the predicted class, float [N, H, W].
        predictions_NHW: Integer class ids, [N, H, W].
        labels_NHW: Integer class ids or 255 (not counted), [N, H, W].

    Returns:
        int64 [3, BINS]: pixels, confidence in units of 1 / `UNITS`, correct pixels.
    """
    counted = labels_NHW != IGNORE_INDEX
    bins = torch.where(counted, (confidences_NHW * BINS).long().clamp_(max=BINS - 1), BINS).flatten()
    confidence = (confidences_NHW.double() * UNITS).floor_().flatten()
    correct = (predictions_NHW == labels_NHW).double().flatten()
    rows = [
        torch.bincount(bins, weights, BINS + 1) for weights in (torch.ones_like(correct), confidence, correct)
    ]
    return torch.stack(rows)[:, :-1].long()


def expected_calibration_error(counts: Tensor) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by pixels (Guo et al., ICML 2017).

    Args:
        counts: int64 [3, BINS] of `calibration_counts`.
    """
    pixels, confidence, correct = counts.double()
    return ((confidence / UNITS - correct).abs().sum() / pixels.sum()).item()
