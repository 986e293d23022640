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
# `vecdot` writes every product to memory before it sums. On a CPU that costs more than the sums unless few
# rows at a time stay in the cache; an accelerator wants one large kernel instead.
CPU_ROWS = 16


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

    Reads 2 N elements from memory for N parameters where a tensor fits the cache, else 4 N. Sharded gradients
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
    pairs = [*zip(supervised, unsupervised, strict=True)]
    both = [(s, u) for s, u in pairs if s is not None and u is not None]
    squares_s, squares_u, products = [], [], []
    # the three numbers of a tensor one after the other, while it is in the cache
    for x, y in zip(_flat([s for s, _ in both]), _flat([u for _, u in both]), strict=True):
        squares_s.append(_sum_of_squares(x))
        squares_u.append(_sum_of_squares(y))
        products.append(_inner_product(x, y))
    squares_s += map(_sum_of_squares, _flat([s for s, u in pairs if s is not None and u is None]))
    squares_u += map(_sum_of_squares, _flat([u for s, u in pairs if u is not None and s is None]))
    local = torch.stack([_total(numbers, gradients[0]) for numbers in (squares_s, squares_u, products)])
    return Gramian(*_sum_over_shards(local, gradients[0]).unbind())


def _sum_of_squares(x: Tensor) -> Tensor:
    rows, rest = _rows(x)
    return torch.linalg.vector_norm(rows, dim=1).double().square().sum() + torch.dot(rest, rest).double()


def _inner_product(x: Tensor, y: Tensor) -> Tensor:
    (rows_x, rest_x), (rows_y, rest_y) = _rows(x), _rows(y)
    at_once = CPU_ROWS if x.device.type == "cpu" else max(1, len(rows_x))
    dots = [
        torch.linalg.vecdot(some_x, some_y)
        for some_x, some_y in zip(rows_x.split(at_once), rows_y.split(at_once), strict=True)
    ]
    return torch.cat(dots).sum(dtype=torch.float64) + torch.dot(rest_x, rest_y).double()


def _rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """A vector as full rows [n, ROW] and what is left."""
    end = len(x) // ROW * ROW
    return x[:end].view(-1, ROW), x[end:]


def _total(numbers: list[Tensor], like: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=like.device)
    return torch.stack([zero, *numbers]).sum()


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
