"""Pseudo-labels (Eq. 2), the loss against them (Eq. 3), and the base of methods that use both."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pos_hf.errors import InputError
from pos_hf.methods.adjustments import DistributionAlignment, LogitAdjustment
from pos_hf.methods.base import Method, predict_logits
from pos_hf.methods.confidence import Threshold, get_confidence_rule
from pos_hf.methods.mixing import paste
from pos_hf.named import Spec

MEMORIES = 5
"""Of a confidence rule's averages, that a run must last."""


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


def pseudo_label_loss(logits_NCHW: Tensor, target: PseudoLabels) -> Tensor:
    """Eq. 3 as published: the weighted cross-entropies over the number of non-padded pixels of the batch.

    Unconfident pixels stay in the denominator, so the loss is implicitly multiplied by the kept share.

    Args:
        logits_NCHW: The student's, of the mixed view.
        target: The mixed view's pseudo-labels.

    Returns:
        0-d, with graph.
    """
    pixel_losses = cross_entropy(logits_NCHW, target.labels, reduction="none")
    return (pixel_losses * target.weights).sum() / target.valid.sum()


class PseudoLabelMethod(Method):
    """A method that learns from confident pseudo-labels.

    Args:
        threshold: A fixed confidence threshold, or a rule of confidence.py by name, or by name and options:
            `{"name": "freematch", "decay": 0.99}`.
        supervised_loss: As in `Method`.
        distribution_alignment: Align the unlabeled class distribution with the labeled one before Eq. 2.
        logit_adjustment: Correct L_u for the classes of which the rule keeps few pixels or none.
    """

    def __init__(
        self,
        threshold: Threshold = 0.95,
        supervised_loss: Spec = "cross_entropy",
        distribution_alignment: bool = False,
        logit_adjustment: bool = False,
    ) -> None:
        super().__init__(supervised_loss)
        self.rule = get_confidence_rule(threshold)
        self.needs_held_out = self.rule.needs_held_out
        self.alignment = DistributionAlignment() if distribution_alignment else None
        self.adjustment = LogitAdjustment() if logit_adjustment else None
        self.adjusts_rare_classes = logit_adjustment

    def require_length(self, num_steps: int) -> None:
        """Refuse a run whose rule would keep nearly every pixel for more than a fifth of its steps."""
        if num_steps < MEMORIES * self.rule.memory:
            decay = math.floor(100 * num_steps / (num_steps + MEMORIES)) / 100
            raise InputError(
                f"the averages of {type(self.rule).__name__} start from one over the number of classes and "
                f"remember {self.rule.memory:,.0f} steps, of a run of {num_steps:,}: until they are right "
                f"nearly every pseudo-label counts; set its decay to {decay} or less, or train longer"
            )

    def observe_held_out(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Show the rule held-out labels beside probabilities as it sees them in training."""
        align = self.alignment.align if self.alignment else lambda probabilities: probabilities
        self.rule.observe_held_out((align(probabilities), labels) for probabilities, labels in batches)

    def supervised_loss(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        """The labeled images' loss; rules that compare with labeled predictions see them here."""
        self.rule.observe_labeled(logits_NCHW.detach(), labels_NHW)
        if self.alignment:
            self.alignment.observe_labeled(logits_NCHW.detach(), labels_NHW)
        return super().supervised_loss(logits_NCHW, labels_NHW)

    def teacher_labels(self, teacher: nn.Module | None, unlabeled: Mapping[str, Tensor]) -> PseudoLabels:
        """The EMA teacher's pseudo-labels of the weak view."""
        assert teacher is not None
        return self.pseudo_labels(
            predict_logits(teacher, unlabeled["pixel_values"]), unlabeled["padding_mask"]
        )

    @torch.no_grad()
    def pseudo_labels(
        self, logits_NCHW: Tensor, padding_mask_NHW: Tensor, observe: bool = True
    ) -> PseudoLabels:
        """Eq. 2: each pixel's most probable class, weighted by the confidence rule.

        Args:
            logits_NCHW: The teacher's, of the weak view.
            padding_mask_NHW: True on padding, which gets weight 0.
            observe: Update the rule's state first; False for further images of the same step.

        Returns:
            Labels without a graph.
        """
        probabilities = logits_NCHW.softmax(1)
        valid = ~padding_mask_NHW
        if self.alignment:
            if observe:
                self.alignment.observe(probabilities, valid)
            probabilities = self.alignment.align(probabilities)
        if observe:
            self.rule.observe(probabilities, valid, self.progress)
        weights = self.rule.weights(probabilities).to(probabilities.dtype)
        weights = torch.where(valid, weights, 0.0)
        labels = probabilities.max(1).indices  # on a CPU several times faster than argmax
        if self.adjustment and observe:
            self.adjustment.observe(probabilities, labels, weights, valid)
        return PseudoLabels(labels, weights, valid)

    def unsupervised_loss(self, logits_NCHW: Tensor, target: PseudoLabels) -> Tensor:
        """`pseudo_label_loss`, of adjusted logits where the method adjusts them."""
        return pseudo_label_loss(self.adjustment(logits_NCHW) if self.adjustment else logits_NCHW, target)
