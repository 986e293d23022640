"""U2PL's filter: a growing percentile of the most certain pixels. Its contrastive memory bank is left out."""

from collections.abc import Iterator

from torch import nn

from pos_hf.methods.base import Batch, LossTerm, predict_logits
from pos_hf.methods.mixing import box_mask, paste
from pos_hf.methods.pseudo_labels import PseudoLabelMethod
from pos_hf.named import Share, Spec


class U2PL(PseudoLabelMethod):
    """Wang et al., U2PL (CVPR 2022), its loss on reliable pixels.

    The published denominators: a mean over the kept pixels, scaled by all over kept pixels. After CutMix,
    which the published code applies to half of the steps, the percentile is that of the unmixed batch.

    Args:
        start: Share of the pixels, most certain first, that count at the start; it grows linearly to 1.
        supervised_loss: As in `Method`.
    """

    def __init__(self, start: Share = 0.8, supervised_loss: Spec = "cross_entropy") -> None:
        super().__init__({"name": "percentile", "start": start}, supervised_loss)

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        unlabeled = batch["unlabeled"]
        yield self.supervised_term(student, batch["labeled"])

        weak = self.teacher_labels(teacher, unlabeled)
        box = box_mask(unlabeled["cutmix_boxes"][:, 0], *weak.labels.shape[-2:])
        strong = unlabeled["strong_pixel_values"][:, 0]
        logits = predict_logits(student, paste(strong, strong.flip(0), box))
        target = weak.paste(weak.flip(), box)
        # pseudo_label_loss divides by the valid pixels; the published scale is valid / kept^2
        valid_over_kept = target.valid.sum() / target.weights.sum().clamp(min=1)
        loss = self.unsupervised_loss(logits, target) * valid_over_kept.square()
        statistics = {"kept_share": weak.kept_share(), "strong_1_loss": loss.detach()}
        yield LossTerm("unsupervised", loss, statistics)
