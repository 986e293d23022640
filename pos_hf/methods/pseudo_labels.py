"""Pseudo-labels (Eq. 2) and the loss against them (Eq. 3). Which pixels count is decided in confidence.py."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pos_hf.methods.confidence import ConfidenceRule
from pos_hf.methods.mixing import paste


class PseudoLabels(NamedTuple):
    """[N, H, W] each: int64 labels, float weights (0 on padding), and which pixels are not padding (bool)."""

    labels: Tensor
    weights: Tensor
    valid: Tensor

    def flip(self) -> "PseudoLabels":
        """The batch in reverse order: the CutMix partner of image i is image N-1-i (UniMatch V2)."""
        return PseudoLabels(*(field.flip(0) for field in self))

    def paste(self, patch: "PseudoLabels", mask_NHW: Tensor) -> "PseudoLabels":
        """The labels of the image that CutMix makes: `patch` inside the mask."""
        return PseudoLabels(*(paste(base, new, mask_NHW) for base, new in zip(self, patch, strict=True)))

    def kept_share(self) -> Tensor:
        """Share of the non-padded pixels that count, 0-d (the published "mask ratio")."""
        return self.weights.sum() / self.valid.sum()


def pseudo_labels(logits_NCHW: Tensor, padding_mask_NHW: Tensor, rule: ConfidenceRule) -> PseudoLabels:
    """Eq. 2: each pixel's most probable class, weighted by the rule; 0 on padding (True = padding)."""
    probabilities = logits_NCHW.detach().softmax(1)
    weights = rule.weights(probabilities)
    valid = ~padding_mask_NHW
    return PseudoLabels(probabilities.argmax(1), torch.where(valid, weights, 0.0), valid)


def pseudo_label_loss(logits_NCHW: Tensor, target: PseudoLabels) -> Tensor:
    """Eq. 3 as published: the weighted cross-entropies over the number of non-padded pixels (local batch).

    Unconfident pixels stay in the denominator, so the loss is implicitly multiplied by the kept share.
    """
    pixel_losses = cross_entropy(logits_NCHW, target.labels, reduction="none")
    return (pixel_losses * target.weights).sum() / target.valid.sum()
