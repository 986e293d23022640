"""Labeled images only: the baseline every semi-supervised result is read against."""

from collections.abc import Iterator

from torch import nn

from pos_hf.methods.base import Batch, LossTerm, Method, predict_logits
from pos_hf.methods.losses import cross_entropy


class Supervised(Method):
    """One term: the supervised loss (Eq. 1). The unlabeled half of the batch is not looked at."""

    uses_teacher = False
    num_strong_views = 0

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        labeled = batch["labeled"]
        yield LossTerm(
            "supervised", cross_entropy(predict_logits(student, labeled["pixel_values"]), labeled["labels"])
        )
