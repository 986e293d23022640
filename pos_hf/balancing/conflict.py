"""Whether two objectives conflict, from gradients of independent batches. Who draws them is not its business.

A batch's gradient is the full gradient (its expectation) plus noise of covariance C (Eq. 7 and 8). In many
dimensions that noise is longer than the full gradient: |g|^2 estimates |full|^2 + trace(C), and the cosine of
a batch's two gradients is pulled towards 0. Products of gradients of *different* batches have no such bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

COLUMNS = 2**16  # of a stack of gradients multiplied at a time: bounds the float64 copy to N x 0.5 MiB
NORMAL_QUANTILE = 1.959964


class Estimate(NamedTuple):
    """A value and its 95 % interval, float64 [...]; NaN where the batches do not tell it from noise."""

    value: Tensor
    low: Tensor
    high: Tensor


class Conflict(NamedTuple):
    """What K batches say of the full gradients s and u; squares, product and traces are unbiased."""

    supervised_square: Estimate
    """|s|^2, which may come out below 0."""
    unsupervised_square: Estimate
    """|u|^2."""
    product: Estimate
    """<s, u>."""
    supervised_trace: Estimate
    """trace(C_s), the expected squared length of a batch's noise."""
    unsupervised_trace: Estimate
    """trace(C_u)."""
    cosine: Estimate
    """Of s and u; NaN where the interval of either square reaches 0."""
    norm_ratio: Estimate
    """|u| / |s|, which Remark 1 has below 1; likewise NaN."""
    trace_ratio: Estimate
    """trace(C_s) / trace(C_u), which Remark 1 has above 1 and Fig. 3 (a) above 3."""
    batch_cosine: Tensor
    """Mean cosine of a batch's own two gradients (Fig. 1 a), over the batches in which neither is 0."""
    negative_share: Tensor
    """Share of the batches in which that cosine is negative."""
    supervised_cosine: Tensor
    """Mean cosine of two batches' supervised gradients: what one batch tells of its own objective."""
    unsupervised_cosine: Tensor
    """The same of the unsupervised gradients."""


def gram_matrix(gradients: Tensor) -> Tensor:
    """All inner products of a stack of gradients.

    Args:
        gradients: float [N, P], in memory or mapped from a file.

    Returns:
        float64 [N, N].
    """
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for columns in gradients.split(COLUMNS, dim=1):
        block = columns.double()
        products.addmm_(block, block.T)
    return products


def estimate_conflict(supervised: Tensor, unsupervised: Tensor, between: Tensor) -> Conflict:
    """Estimate the full gradients' geometry from the inner products of K independent batches' gradients.

    Args:
        supervised: <s_i, s_j>, float64 [..., K, K] with K >= 3.
        unsupervised: <u_i, u_j>, likewise.
        between: <s_i, u_j>; row i and column i are of the same batch.

    Returns:
        The estimates [...]. Intervals are jackknifed over batches, with Student's t of K - 1 degrees of
        freedom (those of ratios in the logarithm). Where noise dwarfs the full gradients they are rather too
        wide: the jackknife counts a product of two noises twice (Efron and Stein, The jackknife estimate of
        variance, 1981).
    """
    ss, uu, su = map(_different_batches, (supervised, unsupervised, between))
    trace_s, trace_u = _same_batch(supervised) - ss, _same_batch(unsupervised) - uu
    square_s, square_u = _jackknife(ss), _jackknife(uu)
    resolved = ((square_s.low > 0) & (square_u.low > 0))[..., None]
    ss, uu = (torch.where(resolved, square, torch.nan) for square in (ss, uu))
    norms_s, norms_u = (_own(products).sqrt() for products in (supervised, unsupervised))
    cosines = _own(between) / (norms_s * norms_u)
    return Conflict(
        supervised_square=square_s,
        unsupervised_square=square_u,
        product=_jackknife(su),
        supervised_trace=_jackknife(trace_s),
        unsupervised_trace=_jackknife(trace_u),
        cosine=_jackknife(su / (ss * uu).sqrt()),
        norm_ratio=_jackknife((uu / ss).sqrt(), torch.log, torch.exp),
        trace_ratio=_jackknife(trace_s / trace_u, torch.log, torch.exp),
        batch_cosine=cosines.nanmean(-1),
        negative_share=(cosines < 0).double().mean(-1),
        supervised_cosine=_mean_cosine_of_pairs(supervised, norms_s),
        unsupervised_cosine=_mean_cosine_of_pairs(unsupervised, norms_u),
    )


def _own(products: Tensor) -> Tensor:
    return products.diagonal(dim1=-2, dim2=-1)


def _same_batch(products: Tensor) -> Tensor:
    """Mean of the diagonal: of all batches, then with each left out; [..., 1 + K]."""
    own = _own(products)
    total = own.sum(-1, keepdim=True)
    count = own.shape[-1]
    return torch.cat([total / count, (total - own) / (count - 1)], -1)


def _different_batches(products: Tensor) -> Tensor:
    """Mean beside the diagonal: of all batches, then with each left out; [..., 1 + K]."""
    own = _own(products)
    total = (products.sum((-2, -1)) - own.sum(-1))[..., None]
    without = total - (products.sum(-1) + products.sum(-2) - 2 * own)
    count = own.shape[-1]
    return torch.cat([total / (count * (count - 1)), without / ((count - 1) * (count - 2))], -1)


def _jackknife(
    values: Tensor,
    to_scale: Callable[[Tensor], Tensor] = torch.clone,
    back: Callable[[Tensor], Tensor] = torch.clone,
) -> Estimate:
    """The interval of `values[..., 0]` from the leave-one-out values behind it, on the scale given."""
    scaled = to_scale(values)
    value, left_out = scaled[..., 0], scaled[..., 1:]
    count = left_out.shape[-1]
    deviations = left_out - left_out.mean(-1, keepdim=True)
    error = ((count - 1) / count * deviations.square().sum(-1)).sqrt()
    half = _student_quantile(count - 1) * error
    # NaN where a leave-one-out value is: such an estimate hangs on one batch
    return Estimate(values[..., 0] + 0 * half, back(value - half), back(value + half))


def _student_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t for 15 degrees or more, to 1e-3 (Cornish-Fisher expansion)."""
    z = NORMAL_QUANTILE
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def _mean_cosine_of_pairs(products: Tensor, norms: Tensor) -> Tensor:
    cosines = products / (norms[..., :, None] * norms[..., None, :])
    beside = ~torch.eye(norms.shape[-1], dtype=torch.bool)
    return cosines[..., beside].nanmean(-1)
