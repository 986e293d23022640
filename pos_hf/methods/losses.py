"""Losses against labels or probabilities, without NaN and host syncs. Not the loss on pseudo-labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as pixel_cross_entropy

from pos_hf.errors import InputError

IGNORE_INDEX = 255


def cross_entropy(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """Eq. 1 as published: the mean cross-entropy over the labeled pixels of the batch.

    Args:
        logits_NCHW: At the labels' size.
        labels_NHW: int64, 255 where not labeled.

    Returns:
        0-d; exactly 0 with a graph when no pixel is labeled, where PyTorch's mean is NaN.
    """
    total = pixel_cross_entropy(logits_NCHW, labels_NHW, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels_NHW != IGNORE_INDEX).sum().clamp(min=1)


@dataclass(frozen=True)
class OHEM:
    """Cross-entropy over the hardest labeled pixels, the published Cityscapes criterion (UniMatch V1 and V2).

    A pixel counts when its true class has probability <= max(threshold, the `min_kept`-th smallest such
    probability of the local batch). Fewer labeled pixels than `min_kept`: all of them count. The comparison
    runs on the losses (-log p), so that one selection of the largest losses replaces the published sort of
    all pixels.

    Args:
        threshold: Probability of the true class at and below which a pixel is hard.
        min_kept: Pixels kept at least, in the local batch.
    """

    threshold: float = 0.7
    min_kept: int = 200_000

    def __post_init__(self) -> None:
        if self.threshold == 0:
            raise InputError("the threshold of ohem is 0, a probability that no pixel has: set it above 0")

    def __call__(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        losses = pixel_cross_entropy(logits_NCHW, labels_NHW, ignore_index=IGNORE_INDEX, reduction="none")
        labeled = labels_NHW != IGNORE_INDEX
        hardest = losses.detach().flatten().topk(min(self.min_kept, losses.numel()), sorted=False).values
        easiest_kept = hardest.amin().clamp(max=-math.log(self.threshold))
        kept = labeled & ((losses.detach() >= easiest_kept) | (labeled.sum() < self.min_kept))
        return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)


SUPERVISED_LOSSES: dict[str, Callable[..., Callable[[Tensor, Tensor], Tensor]]] = {
    "cross_entropy": lambda: cross_entropy,
    "ohem": OHEM,
}


def squared_error(logits_NCHW: Tensor, probabilities_NCHW: Tensor, padding_mask_NHW: Tensor) -> Tensor:
    """Squared distance of softmax(logits) to given probabilities, mean over the non-padded pixels, 0-d."""
    distance_NHW = (logits_NCHW.softmax(1) - probabilities_NCHW).square().sum(1)
    valid = ~padding_mask_NHW
    return torch.where(valid, distance_NHW, 0.0).sum() / valid.sum()
