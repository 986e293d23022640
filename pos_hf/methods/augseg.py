"""AugSeg: FixMatch whose uncertain images get a labeled patch pasted in before CutMix."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pos_hf.methods.base import Batch, LossTerm, predict_logits
from pos_hf.methods.confidence import entropy
from pos_hf.methods.mixing import box_mask, paste, random_boxes
from pos_hf.methods.pseudo_labels import PseudoLabelMethod, PseudoLabels, pseudo_label_loss
from pos_hf.values import IGNORE_INDEX


class AugSeg(PseudoLabelMethod):
    """Zhao et al., AugSeg (CVPR 2023), written from its paper.

    An image's certainty is the mean over its pixels of confidence x (1 - entropy / log C). With probability
    1 - certainty a box of the labeled image of the same row (fewer labeled images take turns), with its true
    labels, is pasted into the strong view; then CutMix with the flipped batch. So part of the unsupervised
    loss is supervised by ground truth.
    """

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        assert teacher is not None
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        yield self.supervised_term(student, labeled)

        weak_logits = predict_logits(teacher, unlabeled["pixel_values"])
        weak = self.pseudo_labels(weak_logits, unlabeled["padding_mask"])
        certainty = _certainty(weak_logits, weak.valid)
        inject = torch.rand_like(certainty) >= certainty
        patch = box_mask(random_boxes(weak_logits), *weak_logits.shape[-2:]) & inject[:, None, None]
        rows = torch.arange(len(patch), device=patch.device) % len(labeled["labels"])
        labels = labeled["labels"][rows]
        is_labeled = labels != IGNORE_INDEX
        true_labels = torch.where(is_labeled, labels, 0)
        truth = PseudoLabels(true_labels, is_labeled.to(weak.weights.dtype), is_labeled)
        strong = paste(unlabeled["strong_pixel_values"][:, 0], labeled["pixel_values"][rows], patch)
        target = weak.paste(truth, patch)

        box = box_mask(unlabeled["cutmix_boxes"][:, 0], *weak_logits.shape[-2:])
        logits = predict_logits(student, paste(strong, strong.flip(0), box))
        if self.adjustment:  # for what the rule keeps; it has not chosen the true labels
            is_true = paste(patch, patch.flip(0), box)
            logits = torch.where(is_true[:, None], logits, self.adjustment(logits))
        loss = pseudo_label_loss(logits, target.paste(target.flip(), box))
        statistics = {
            "kept_share": weak.kept_share(),
            "injected_share": inject.float().mean(),
            "strong_1_loss": loss.detach(),
        }
        yield LossTerm("unsupervised", loss, statistics)


def _certainty(logits_NCHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """Mean certainty of each image over its non-padded pixels, [N] in [0, 1]."""
    probabilities = logits_NCHW.softmax(1)
    relative_entropy_NHW = entropy(probabilities) / math.log(probabilities.shape[1])
    certainty_NHW = probabilities.amax(1) * (1 - relative_entropy_NHW)
    return torch.where(valid_NHW, certainty_NHW, 0.0).sum((1, 2)) / valid_NHW.sum((1, 2))
