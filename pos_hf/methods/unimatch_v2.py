"""UniMatch V2: two strong views through complementary channel dropout learn the teacher's labels."""

from collections.abc import Iterator

from torch import cat, nn

from pos_hf.methods.base import Batch, LossTerm, kept_statistics, predict_logits
from pos_hf.methods.mixing import box_mask, paste
from pos_hf.methods.pseudo_labels import PseudoLabelMethod


class UniMatchV2(PseudoLabelMethod):
    """Yang et al., UniMatch V2 (TPAMI 2025), as its published script: L_u = (L_s1 + L_s2) / 2."""

    num_strong_views = 2

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        unlabeled = batch["unlabeled"]
        yield self.supervised_term(student, batch["labeled"])

        weak = self.teacher_labels(teacher, unlabeled)
        box_1, box_2 = box_mask(unlabeled["cutmix_boxes"], *weak.labels.shape[-2:]).unbind(1)
        strong_1, strong_2 = unlabeled["strong_pixel_values"].unbind(1)
        strong_1 = paste(strong_1, strong_1.flip(0), box_1)
        strong_2 = paste(strong_2, strong_2.flip(0), box_2)

        with kept_statistics(student):
            strong_logits = predict_logits(student, cat([strong_1, strong_2]), "complementary_dropout")
        logits_1, logits_2 = strong_logits.chunk(2)
        loss_1 = self.unsupervised_loss(logits_1, weak.paste(weak.flip(), box_1))
        loss_2 = self.unsupervised_loss(logits_2, weak.paste(weak.flip(), box_2))
        statistics = {
            "kept_share": weak.kept_share(),
            "strong_1_loss": loss_1.detach(),
            "strong_2_loss": loss_2.detach(),
        }
        yield LossTerm("unsupervised", (loss_1 + loss_2) / 2, statistics)
