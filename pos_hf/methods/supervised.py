"""Labeled images only: the baseline every semi-supervised result is read against."""

from collections.abc import Iterator

from torch import nn

from pos_hf.methods.base import Batch, LossTerm, Method


class Supervised(Method):
    """One term: the supervised loss (Eq. 1). The unlabeled half of the batch is not looked at."""

    objectives = ("supervised",)
    uses_teacher = False
    num_strong_views = 0

    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        yield self.supervised_term(student, batch["labeled"])
