"""Pixel losses: supervised cross-entropy (plain or OHEM). Not the loss on pseudo-labels."""

from torch import Tensor
from torch.nn.functional import cross_entropy as pixel_cross_entropy

IGNORE_INDEX = 255


def cross_entropy(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """Eq. 1 as published: mean cross-entropy over the labeled pixels of the batch (labels != 255).

    A batch without a labeled pixel gives exactly 0 with a graph and zero gradients; PyTorch's mean is NaN.
    """
    total = pixel_cross_entropy(logits_NCHW, labels_NHW, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels_NHW != IGNORE_INDEX).sum().clamp(min=1)
