"""FixMatch for segmentation: one mixed strong view learns the confident labels of the weak view."""

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from typing import Literal

from torch import cat, nn

from pos_hf.methods.base import Batch, LossTerm, kept_statistics, predict_logits
from pos_hf.methods.confidence import Threshold
from pos_hf.methods.mixing import box_mask, class_mask, paste
from pos_hf.methods.pseudo_labels import PseudoLabelMethod, PseudoLabels
from pos_hf.named import Spec


class FixMatch(PseudoLabelMethod):
    """FixMatch as in the UniMatch repositories; an image's mixing partner is its mirror in the flipped batch.

    The V2 script joins labeled and strong images in one forward; its networks have no BatchNorm, so the two
    forwards used here are the same mathematics and each graph is freed before the next is built.

    Args:
        teacher: "ema" (V2's script), or "student" (V1's script): the labels come from the student itself in
            training mode, in one forward with the labeled images, whose BatchNorm statistics it shapes. V1's
            script pairs each image with a second draw of itself; its author recommends the flip as equal.
        mixing: "cutmix", or "classmix": half of the partner's classes are pasted.
    """

    def __init__(
        self,
        threshold: Threshold = 0.95,
        supervised_loss: Spec = "cross_entropy",
        distribution_alignment: bool = False,
        logit_adjustment: bool = False,
        teacher: Literal["ema", "student"] = "ema",
        mixing: Literal["cutmix", "classmix"] = "cutmix",
    ) -> None:
        super().__init__(threshold, supervised_loss, distribution_alignment, logit_adjustment)
        self.uses_teacher = teacher == "ema"
        self.mixing = mixing

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        unlabeled = batch["unlabeled"]
        if self.uses_teacher:
            yield self.supervised_term(student, batch["labeled"])
            weak = self.teacher_labels(teacher, unlabeled)
        else:
            weak = yield from self._joint_forward(student, batch)

        if self.mixing == "cutmix":
            mask = box_mask(unlabeled["cutmix_boxes"][:, 0], *weak.labels.shape[-2:])
        else:
            mask = class_mask(weak.labels, weak.valid).flip(0)
        strong = unlabeled["strong_pixel_values"][:, 0]
        # V1's script lets the strong views shape the statistics that it labels with
        with kept_statistics(student) if self.uses_teacher else nullcontext():
            logits = predict_logits(student, paste(strong, strong.flip(0), mask))
        loss = self.unsupervised_loss(logits, weak.paste(weak.flip(), mask))
        statistics = {"kept_share": weak.kept_share(), "strong_1_loss": loss.detach()}
        yield LossTerm("unsupervised", loss, statistics)

    def _joint_forward(self, student: nn.Module, batch: Batch) -> Generator[LossTerm, None, PseudoLabels]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        images = cat([labeled["pixel_values"], unlabeled["pixel_values"]])
        counts = [len(labeled["pixel_values"]), len(unlabeled["pixel_values"])]
        labeled_logits, weak_logits = predict_logits(student, images).split(counts)
        supervised_loss = self.supervised_loss(labeled_logits, labeled["labels"])
        weak = self.pseudo_labels(weak_logits, unlabeled["padding_mask"])
        yield LossTerm("supervised", supervised_loss)
        return weak
