"""The Gramian of the two gradients: three inner products. What is done with them lives in strategies.py."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

# Tensors below PACK elements cost more to launch a kernel for than to copy: they are concatenated.
PACK = 2**16
# One float32 running sum over 25M elements is off by 6e-4. Rows of ROW elements are summed in the gradients'
# own precision, the rows in float64: off by 5e-9, at the speed of the plain dot product.
ROW = 2**12


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
        """Cosine of the angle between the two gradients (Fig. 1 a), 0-d; NaN where one gradient is zero."""
        return self.cross / (self.supervised.sqrt() * self.unsupervised.sqrt())

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
        )


def gramian(supervised: Sequence[Tensor | None], unsupervised: Sequence[Tensor | None]) -> Gramian:
    """Form the Gramian of two gradient sets over the same parameters, without a host sync.

    Reads 6 N elements from memory for N parameters, 2 N where a tensor stays in the cache. Sharded gradients
    (DTensor, FSDP2) contribute their local shards and one all-reduce of three numbers.

    Args:
        supervised: g_s, one tensor of any shape and floating dtype a parameter; None counts as zero.
        unsupervised: g_u, aligned with ``supervised``.

    Returns:
        The Gramian, the same on every rank if the gradients are.
    """
    gradients = [gradient for gradient in (*supervised, *unsupervised) if gradient is not None]
    if not gradients:
        zero = torch.zeros((), dtype=torch.float64)
        return Gramian(zero, zero, zero)
    both = [(s, u) for s, u in zip(supervised, unsupervised, strict=True) if s is not None and u is not None]
    local = torch.stack(
        [
            _sum_of_squares([s for s in supervised if s is not None], gradients[0]),
            _sum_of_squares([u for u in unsupervised if u is not None], gradients[0]),
            _inner_product([s for s, _ in both], [u for _, u in both], gradients[0]),
        ]
    )
    return Gramian(*_sum_over_shards(local, gradients[0]).unbind())


def _sum_of_squares(gradients: list[Tensor], like: Tensor) -> Tensor:
    return _inner_product(gradients, gradients, like)


def _inner_product(left: list[Tensor], right: list[Tensor], like: Tensor) -> Tensor:
    dots = []
    for x, y in zip(_flat(left), _flat(right), strict=True):
        rows = x.numel() // ROW
        dots.append(torch.dot(x[rows * ROW :], y[rows * ROW :]).double())
        if rows:
            row_dots = torch.linalg.vecdot(x[: rows * ROW].view(rows, ROW), y[: rows * ROW].view(rows, ROW))
            dots.append(row_dots.sum(dtype=torch.float64))
    if not dots:
        return torch.zeros((), dtype=torch.float64, device=like.device)
    return torch.stack(dots).sum()


def _flat(gradients: list[Tensor]) -> Iterator[Tensor]:
    """The gradients as 1-D tensors of float32 or float64, the small ones as one."""
    flat = [_local(gradient).reshape(-1) for gradient in gradients]
    if small := [gradient for gradient in flat if gradient.numel() < PACK]:
        flat = [torch.cat(small), *(gradient for gradient in flat if gradient.numel() >= PACK)]
    for gradient in flat:
        yield gradient.to(torch.promote_types(gradient.dtype, torch.float32))


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _sum_over_shards(numbers: Tensor, gradient: Tensor) -> Tensor:
    if not isinstance(gradient, DTensor):
        return numbers
    placements = [Partial() if placement.is_shard() else Replicate() for placement in gradient.placements]
    return DTensor.from_local(numbers, gradient.device_mesh, placements, run_check=False).full_tensor()
