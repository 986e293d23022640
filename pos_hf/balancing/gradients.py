"""The two gradients of an optimizer step: captured apart, accumulated, written back as one."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from .gramian import Gramian, gramian
from .strategies import Weights

Objective = Literal["supervised", "unsupervised"]
OBJECTIVES: tuple[Objective, Objective] = ("supervised", "unsupervised")


class GradientPair:
    """Holds g_s and g_u apart over the micro-batches of an optimizer step.

    For each backward: `restore` the objective's sum so far into ``.grad``, run the backward (which adds to it
    and, under DDP on the last micro-batch, averages it over ranks), and `capture` it again. Tensors move by
    reference; the only memory beyond an ordinary step is one more gradient set.

    Args:
        parameters: the trainable parameters, in a fixed order.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = list(parameters)
        self._gradients: dict[Objective, list[Tensor | None]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget both gradients."""
        self._gradients = {objective: [None] * len(self.parameters) for objective in OBJECTIVES}

    def restore(self, objective: Objective) -> None:
        """Put an objective's accumulated gradient into ``.grad``, where the next backward adds to it."""
        for parameter, gradient in zip(self.parameters, self._gradients[objective], strict=True):
            parameter.grad = gradient

    def capture(self, objective: Objective) -> None:
        """Take an objective's gradient out of ``.grad``, which is None afterwards."""
        self._gradients[objective] = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None

    def gradients(self, objective: Objective) -> list[Tensor | None]:
        """An objective's accumulated gradient, aligned with ``parameters``; None where it has none."""
        return self._gradients[objective]

    def all_gradients(self) -> list[Tensor]:
        """Every gradient tensor held, supervised first."""
        both = [*self._gradients["supervised"], *self._gradients["unsupervised"]]
        return [gradient for gradient in both if gradient is not None]

    def gramian(self, metric: Sequence[float] | None = None) -> Gramian:
        """The Gramian of both accumulated gradients.

        Args:
            metric: one factor a parameter, by which its share of the inner products is multiplied: 0 leaves
                it out of the scope, learning rates make the common-descent guarantee hold for groups with
                different ones. None is the Euclidean metric.

        Returns:
            Three 0-d float64 tensors.
        """
        supervised, unsupervised = (self._gradients[objective] for objective in OBJECTIVES)
        if metric is None:
            return gramian(supervised, unsupervised)
        parts = []
        for factor in sorted({factor for factor in metric if factor > 0}):
            members = [index for index, value in enumerate(metric) if value == factor]
            part = gramian([supervised[i] for i in members], [unsupervised[i] for i in members])
            parts.append(factor * torch.stack(part))
        return Gramian(*torch.stack(parts).sum(dim=0).unbind())

    @torch.no_grad()
    def combine(self, weights: Weights) -> None:
        """Write w_s g_s + w_u g_u into ``.grad`` in place and forget both gradients.

        Moves 5 N elements for N parameters (2 N to scale g_u, 3 N to add g_s), without a host sync. A
        parameter that neither objective used keeps ``.grad = None``, so that no optimizer decays it.

        Args:
            weights: (w_s, w_u), 0-d tensors.
        """
        dtypes = {gradient.dtype for gradient in self.all_gradients()}
        # cast once; bfloat16 would round the update's norm off by up to 0.4 %
        cast = {dtype: [w.to(torch.promote_types(dtype, torch.float32)) for w in weights] for dtype in dtypes}
        for parameter, supervised, unsupervised in zip(
            self.parameters, *(self._gradients[objective] for objective in OBJECTIVES), strict=True
        ):
            if unsupervised is None:
                parameter.grad = None if supervised is None else supervised.mul_(cast[supervised.dtype][0])
                continue
            supervised_weight, unsupervised_weight = cast[unsupervised.dtype]
            parameter.grad = unsupervised.mul_(unsupervised_weight)
            if supervised is not None:
                unsupervised.addcmul_(supervised, supervised_weight.to(supervised.dtype))
        self.reset()


def average_over_ranks(gradients: Sequence[Tensor]) -> None:
    """Replace gradients by their mean over all ranks, in place, with one all-reduce of one flat buffer.

    Args:
        gradients: tensors of one dtype; every rank passes the same shapes in the same order.
    """
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
