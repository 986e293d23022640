"""Losses against labels or probabilities, without NaN and host syncs. Not the loss on pseudo-labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as pixel_cross_entropy

from pos_hf.errors import InputError
from pos_hf.named import Share
from pos_hf.values import IGNORE_INDEX


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

    threshold: Share = 0.7
    min_kept: Annotated[int, "[1, inf)"] = 200_000

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


class ClassWeighted(nn.Module):
    """Cross-entropy in which a class counts by a weight: sum of weight x loss over the sum of weights.

    Args:
        class_weights: One weight a class, or "balanced": one over the square root of the class's share of
            the labeled pixels seen so far, over all ranks (the root, because the whole ratio gives a pixel of
            a class of 0.3 % hundreds of times the weight of the road's).
    """

    pixels: Tensor
    given: Tensor

    def __init__(self, class_weights: str | list[float]) -> None:
        super().__init__()
        self.class_weights = class_weights
        given = [] if isinstance(class_weights, str) else class_weights
        self.register_buffer("given", torch.tensor(given, dtype=torch.float64), persistent=False)
        # labels are below 255; a buffer of all ids needs no class count to be restored
        self.register_buffer("pixels", torch.zeros(IGNORE_INDEX, dtype=torch.float64))

    def forward(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        num_classes = logits_NCHW.shape[1]
        if self.class_weights == "balanced":
            seen = torch.zeros(IGNORE_INDEX + 1, dtype=torch.float64, device=logits_NCHW.device)
            ones = torch.ones((), dtype=torch.float64, device=logits_NCHW.device).expand(labels_NHW.numel())
            seen.scatter_add_(0, labels_NHW.flatten(), ones)
            self.pixels += sum_over_ranks(seen[:-1])
            weight_C = self.pixels[:num_classes].clamp(min=1).rsqrt()
        elif len(self.given) != num_classes:
            raise InputError(
                f"class_weights holds {len(self.given)} weights for {num_classes} classes: give one a class, "
                "in the order of ids"
            )
        else:
            weight_C = self.given
        weight_C = weight_C.to(logits_NCHW.dtype)
        is_labeled = labels_NHW != IGNORE_INDEX
        total = pixel_cross_entropy(
            logits_NCHW, labels_NHW, weight_C, ignore_index=IGNORE_INDEX, reduction="sum"
        )
        weights = torch.where(is_labeled, weight_C[torch.where(is_labeled, labels_NHW, 0)], 0.0).sum()
        return total / weights.clamp(min=torch.finfo(weights.dtype).tiny)


def _cross_entropy(class_weights: str | list[float] | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    if class_weights is None:
        return cross_entropy
    if isinstance(class_weights, str):
        if class_weights != "balanced":
            raise InputError(
                f"class_weights is {class_weights!r}: set it to balanced, or to a list of one weight a class"
            )
    elif not class_weights or min(class_weights) < 0 or max(class_weights) == 0:
        raise InputError(f"class_weights {class_weights} must be at least 0, one of them above")
    return ClassWeighted(class_weights)


SUPERVISED_LOSSES: dict[str, Callable[..., Callable[[Tensor, Tensor], Tensor]]] = {
    "cross_entropy": _cross_entropy,
    "ohem": OHEM,
}


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add up what every rank holds, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def squared_error(logits_NCHW: Tensor, probabilities_NCHW: Tensor, padding_mask_NHW: Tensor) -> Tensor:
    """Squared distance of softmax(logits) to given probabilities, mean over the non-padded pixels, 0-d."""
    distance_NHW = (logits_NCHW.softmax(1) - probabilities_NCHW).square().sum(1)
    valid = ~padding_mask_NHW
    return torch.where(valid, distance_NHW, 0.0).sum() / valid.sum()
