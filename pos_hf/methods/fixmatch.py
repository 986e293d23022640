"""FixMatch for segmentation: one strong view learns the teacher's confident labels of the weak view."""

from collections.abc import Iterator

from torch import nn

from pos_hf.methods.base import Batch, LossTerm, Method, predict_logits
from pos_hf.methods.confidence import FixedThreshold
from pos_hf.methods.losses import cross_entropy
from pos_hf.methods.mixing import box_mask, paste
from pos_hf.methods.pseudo_labels import pseudo_label_loss, pseudo_labels


class FixMatch(Method):
    """FixMatch as in UniMatch V2's repository: EMA teacher, CutMix with the flipped batch.

    The published script joins labeled and strong images in one forward; its networks have no BatchNorm, so
    the two forwards used here are the same mathematics and each graph is freed before the next is built.
    """

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        self.rule = FixedThreshold(threshold)

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        yield LossTerm(
            "supervised", cross_entropy(predict_logits(student, labeled["pixel_values"]), labeled["labels"])
        )

        assert teacher is not None
        weak = pseudo_labels(
            predict_logits(teacher, unlabeled["pixel_values"]), unlabeled["padding_mask"], self.rule
        )
        box = box_mask(unlabeled["cutmix_boxes"][:, 0], *weak.labels.shape[-2:])
        strong = unlabeled["strong_pixel_values"][:, 0]
        logits = predict_logits(student, paste(strong, strong.flip(0), box))
        loss = pseudo_label_loss(logits, weak.paste(weak.flip(), box))
        yield LossTerm("unsupervised", loss, {"kept_share": weak.kept_share()})
