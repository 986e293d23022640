"""Mean Teacher and CutMix-Seg: the student's probabilities approach the EMA teacher's in squared error."""

import math
from collections.abc import Iterator

from torch import nn

from pos_hf.methods.base import Batch, LossTerm, Method, predict_logits
from pos_hf.methods.losses import squared_error
from pos_hf.methods.mixing import box_mask, paste
from pos_hf.named import Share, Spec


class MeanTeacher(Method):
    """Tarvainen & Valpola (NeurIPS 2017): squared error on one strong view, ramped up by exp(-5 (1 - t)^2).

    The error is summed over classes and averaged over the non-padded pixels.

    Args:
        ramp_up: Share of the training over which the unsupervised loss rises from exp(-5) to full weight.
        supervised_loss: As in `Method`.
    """

    def __init__(self, ramp_up: Share = 0.2, supervised_loss: Spec = "cross_entropy") -> None:
        super().__init__(supervised_loss)
        self.ramp_up = ramp_up

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        assert teacher is not None
        unlabeled = batch["unlabeled"]
        yield self.supervised_term(student, batch["labeled"])

        target = predict_logits(teacher, unlabeled["pixel_values"]).softmax(1)
        logits = predict_logits(student, unlabeled["strong_pixel_values"][:, 0])
        loss = squared_error(logits, target, unlabeled["padding_mask"])
        remaining = max(0.0, 1 - self.progress / self.ramp_up) if self.ramp_up else 0.0
        yield LossTerm("unsupervised", math.exp(-5 * remaining**2) * loss, {"strong_1_loss": loss.detach()})


class CutMixSeg(Method):
    """French et al. (BMVC 2020): Mean Teacher on CutMix images; the targets mix the teacher's probabilities.

    As in its code the loss is scaled by the share of pixels whose confidence reaches `threshold`. The partner
    is the flipped batch.

    Args:
        threshold: Confidence that counts a pixel as confident.
        supervised_loss: As in `Method`.
    """

    def __init__(self, threshold: Share = 0.97, supervised_loss: Spec = "cross_entropy") -> None:
        super().__init__(supervised_loss)
        self.threshold = threshold

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        assert teacher is not None
        unlabeled = batch["unlabeled"]
        yield self.supervised_term(student, batch["labeled"])

        weak = predict_logits(teacher, unlabeled["pixel_values"]).softmax(1)
        box = box_mask(unlabeled["cutmix_boxes"][:, 0], *weak.shape[-2:])
        target = paste(weak, weak.flip(0), box)
        padding = paste(unlabeled["padding_mask"], unlabeled["padding_mask"].flip(0), box)
        kept_share = ((target.amax(1) >= self.threshold) & ~padding).sum() / (~padding).sum()

        strong = unlabeled["strong_pixel_values"][:, 0]
        loss = squared_error(predict_logits(student, paste(strong, strong.flip(0), box)), target, padding)
        statistics = {"kept_share": kept_share, "strong_1_loss": loss.detach()}
        yield LossTerm("unsupervised", loss * kept_share, statistics)
