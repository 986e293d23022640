"""The Gramian of the two gradients: three inner products. What is done with them lives in strategies.py."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

# Tensors below PACK elements cost more to launch a kernel for than to copy.
PACK = 2**16
# One float32 running sum over 25M elements is off by 6e-4. Rows of ROW elements are summed in the gradients'
# own precision, the rows in float64: off by 5e-9, at the speed of the plain dot product.
ROW = 2**12
# Below this ratio of an update's norm to the norms it is made of, float32 gradients have cancelled three of
# their seven digits: what is left has no direction.
CANCELLED = 1e-3


class Gramian(NamedTuple):
    """Inner products of the supervised and the unsupervised gradient, as 0-d float64 tensors.

    Args:
        supervised: <g_s, g_s>.
        unsupervised: <g_u, g_u>.
        cross: <g_s, g_u>.
    """

    supervised: Tensor
    unsupervised: Tensor
    cross: Tensor

    @property
    def cosine(self) -> Tensor:
        """Cosine of the angle between the two gradients (Fig. 1 a), 0-d; NaN where one gradient is zero.

        Clamped: squares of a gradient below 1e-19 underflow in float32 before its products do.
        """
        return (self.cross / (self.supervised.sqrt() * self.unsupervised.sqrt())).clamp(-1, 1)

    def norm(self, supervised_weight: Tensor, unsupervised_weight: Tensor) -> Tensor:
        """Norm of w_s g_s + w_u g_u from the three numbers, without another pass over the gradients.

        Args:
            supervised_weight: w_s, 0-d.
            unsupervised_weight: w_u, 0-d.

        Returns:
            The norm, 0-d float64.
        """
        square = (
            supervised_weight**2 * self.supervised
            + 2 * supervised_weight * unsupervised_weight * self.cross
            + unsupervised_weight**2 * self.unsupervised
        )
        return square.clamp_min(0).sqrt()

    def is_degenerate(self, supervised_weight: Tensor, unsupervised_weight: Tensor) -> Tensor:
        """Whether one gradient is zero, or the two cancel in w_s g_s + w_u g_u, 0-d bool.

        Args:
            supervised_weight: w_s, 0-d.
            unsupervised_weight: w_u, 0-d.

        Returns:
            True where no strategy has a direction to choose.
        """
        lengths = supervised_weight * self.supervised.sqrt() + unsupervised_weight * self.unsupervised.sqrt()
        cancelled = self.norm(supervised_weight, unsupervised_weight) <= CANCELLED * lengths
        return (self.supervised == 0) | (self.unsupervised == 0) | cancelled

    def min_cosine(self, supervised_weight: Tensor, unsupervised_weight: Tensor) -> Tensor:
        """The smaller of the update's cosines to g_s and to g_u (Fig. 1 b and c), 0-d; negative is conflict.

        Args:
            supervised_weight: w_s, 0-d.
            unsupervised_weight: w_u, 0-d.

        Returns:
            The cosine, 0-d; NaN where the update or one gradient is zero.
        """
        norm = self.norm(supervised_weight, unsupervised_weight)
        to_supervised = supervised_weight * self.supervised + unsupervised_weight * self.cross
        to_unsupervised = supervised_weight * self.cross + unsupervised_weight * self.unsupervised
        return torch.minimum(
            to_supervised / (norm * self.supervised.sqrt()),
            to_unsupervised / (norm * self.unsupervised.sqrt()),
        ).clamp(-1, 1)


def gramian(supervised: Sequence[Tensor | None], unsupervised: Sequence[Tensor | None]) -> Gramian:
    """Form the Gramian of two gradient sets over the same parameters, without a host sync.

    Moves 6 N elements for N parameters, in about four kernels a large tensor. Sharded gradients (DTensor,
    FSDP2) contribute their local shards and one all-reduce of three numbers.

    Args:
        supervised: g_s, one tensor of any shape and floating dtype a parameter; None counts as zero.
        unsupervised: g_u, aligned with ``supervised``.

    Returns:
        The Gramian, the same on every rank if the gradients are.
    """
    filled_s, filled_u = [], []
    for s, u in zip(supervised, unsupervised, strict=True):
        either = u if s is None else s
        if either is not None:
            filled_s.append(torch.zeros_like(either) if s is None else s)
            filled_u.append(torch.zeros_like(either) if u is None else u)
    if not filled_s:
        zero = torch.zeros((), dtype=torch.float64)
        return Gramian(zero, zero, zero)
    numbers = _products([_local(s) for s in filled_s], [_local(u) for u in filled_u])
    return Gramian(*_sum_over_shards(numbers, filled_s[0]).unbind())


def _products(supervised: list[Tensor], unsupervised: list[Tensor]) -> Tensor:
    """The three numbers, [3] in float64, from few and large kernels."""
    norms_s, norms_u, products = [], [], []
    for x, y in zip(_rows(supervised), _rows(unsupervised), strict=True):
        # torch's `vecdot` writes every product to memory before it sums, which squares need not
        products.append(torch.linalg.vecdot(x, y))
        norms_s.append(torch.linalg.vector_norm(x, dim=1))
        norms_u.append(torch.linalg.vector_norm(y, dim=1))
    squares = (torch.cat(norms).double().square().sum() for norms in (norms_s, norms_u))
    return torch.stack([*squares, torch.cat(products).sum(dtype=torch.float64)])


def _rows(gradients: list[Tensor]) -> Iterator[Tensor]:
    """All elements as matrices [n, ROW] of float32 or float64: small tensors and odd ends share the last."""
    rest = []
    for gradient in gradients:
        flat = _at_least_float32(gradient).reshape(-1)
        end = len(flat) // ROW * ROW if len(flat) >= PACK else 0
        if end:
            yield flat[:end].view(-1, ROW)
        rest.append(flat[end:])
    rest.append(rest[0].new_zeros(-sum(map(len, rest)) % ROW))
    yield torch.cat(rest).view(-1, ROW)


def _at_least_float32(gradient: Tensor) -> Tensor:
    return gradient.float() if gradient.element_size() < 4 else gradient


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _sum_over_shards(numbers: Tensor, gradient: Tensor) -> Tensor:
    if not isinstance(gradient, DTensor):
        return numbers
    placements = [Partial() if placement.is_shard() else Replicate() for placement in gradient.placements]
    return DTensor.from_local(numbers, gradient.device_mesh, placements, run_check=False).full_tensor()
