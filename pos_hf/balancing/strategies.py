"""How two gradients are integrated: a strategy is a pure function of their Gramian. No gradient lives here.

The update is ``w_s g_s + w_u g_u``. Below a = <g_s,g_s>, c = <g_u,g_u>, b = <g_s,g_u>, p and q are the two
norms and t = b/pq is the cosine.

| strategy | weights from | source |
|---|---|---|
| ``uniform``, ``fixed`` | constants | Sun et al., ICCV 2025, Eq. 4 |
| ``pos`` | minimum norm, then MEO | Sun et al., ICCV 2025, Eq. 6 and 13; MGDA, Désidéri 2012 |
| ``pcgrad`` | projection of each on the other | Yu et al., NeurIPS 2020 |
| ``upgrad`` | mean of projections on the dual cone | Quinton & Rey, 2024 (TorchJD) |
| ``dualproj`` | projection of the mean on the dual cone | Lopez-Paz & Ranzato, NeurIPS 2017 (GEM) |
| ``cagrad`` | worst objective near the mean | Liu et al., NeurIPS 2021 |
| ``imtl_g`` | equal projections | Liu et al., ICLR 2021 |
| ``config`` | equal cosines, summed length | Liu et al., ICLR 2025 |
| ``nash_mtl`` | Nash bargaining | Navon et al., ICML 2022 |
| ``aligned_mtl`` | equal singular values | Senushkin et al., CVPR 2023 |

A user's own strategy is any function of a Gramian that returns two 0-d tensors.

All arithmetic is scale-free: the three numbers are divided by the larger squared norm, the cross term is
clamped by Cauchy-Schwarz, and no epsilon is added. Where one gradient is exactly zero (no confident pixel,
say) every strategy gives the uniform average. A number that is not finite gives two NaN weights, so that the
loss scaler or the trainer skips the step.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor

from .gramian import Gramian

Weights = tuple[Tensor, Tensor]
Strategy = Callable[[Gramian], Weights]

# Below this ratio of an update's norm to the norms it is made of, float32 gradients have cancelled three of
# their seven digits: what is left is no longer stretched, so that it goes to zero as the gradients become
# opposite.
CANCELLED = 1e-3
# Squared distance of two gradients, relative to their squared norms, that float64 cannot tell from zero.
EQUAL = 1e-14


def scale_free(formula: Strategy) -> Strategy:
    """Make a strategy of a formula that is written for a Gramian whose larger squared norm is 1.

    Args:
        formula: weights from a normalised Gramian (max(a, c) = 1, |b| <= pq) of two non-zero gradients.

    Returns:
        The strategy: formula's weights; (1/2, 1/2) where one gradient is zero; (NaN, NaN) where a number is
        not finite.
    """

    @wraps(formula)
    def strategy(gramian: Gramian) -> Weights:
        numbers = [number.double() for number in gramian]
        scale = torch.maximum(numbers[0], numbers[1])
        a, c, b = (number / torch.where(scale > 0, scale, 1) for number in numbers)
        limit = a.sqrt() * c.sqrt()
        weights = formula(Gramian(a, c, torch.minimum(torch.maximum(b, -limit), limit)))
        absent = (a == 0) | (c == 0)
        not_finite = sum(number * 0 for number in numbers)
        supervised_weight, unsupervised_weight = (
            torch.where(absent, 0.5, weight) + not_finite for weight in weights
        )
        return supervised_weight, unsupervised_weight

    return strategy


@dataclass(frozen=True)
class Fixed:
    """Constant weights (Eq. 4): the trainer then needs one summed backward and no Gramian.

    Args:
        supervised: alpha^s.
        unsupervised: alpha^u.
    """

    supervised: float
    unsupervised: float

    def __call__(self, gramian: Gramian) -> Weights:
        """The two constants as 0-d tensors on the Gramian's device."""
        return (
            torch.full_like(gramian.supervised, self.supervised),
            torch.full_like(gramian.supervised, self.unsupervised),
        )


uniform = Fixed(0.5, 0.5)
fixed = Fixed


def min_norm(gramian: Gramian) -> tuple[Weights, Tensor]:
    """The shortest vector in the convex hull of the two gradients (Eq. 5) in closed form (Eq. 6).

    Args:
        gramian: normalised, both gradients non-zero.

    Returns:
        ((alpha^s, alpha^u), squared norm of the vector), 0-d tensors. Equal gradients get (1/2, 1/2).
    """
    a, c, b = gramian
    distance = a + c - 2 * b
    equal = distance <= EQUAL * (a + c)
    alpha_u = torch.where(equal, 0.5, ((a - b) / distance).clamp(0, 1))
    limit = a.sqrt() * c.sqrt()
    interior = (limit - b) * (limit + b) / distance
    square = torch.where(b >= a, a, torch.where(b >= c, c, torch.where(equal, a, interior)))
    return (1 - alpha_u, alpha_u), square


def meo_gain(gramian: Gramian, weights: Weights, square: Tensor) -> Tensor:
    """MEO's lambda (Eq. 13): the norm of the uniform average over the norm of the minimum-norm vector, >= 1.

    Near opposite gradients the minimum-norm vector is what rounding has left of a cancellation; there its
    norm is taken as ``CANCELLED`` times what it is made of, so that the update goes to zero continuously.

    Args:
        gramian: normalised.
        weights: (alpha^s, alpha^u) of `min_norm`.
        square: squared norm of the minimum-norm vector, 0-d.

    Returns:
        lambda, 0-d.
    """
    a, c, b = gramian
    mean = (a + 2 * b + c).clamp_min(0).sqrt() / 2
    made_of = weights[0] * a.sqrt() + weights[1] * c.sqrt()
    return (mean / torch.maximum(square.sqrt(), CANCELLED * made_of)).clamp_min(1)


def pos(
    meo: bool = True,
    meo_max_gain: float | None = None,
    min_norm_ratio: float = 0.5,
    conflict_only: bool = True,
    preset: Literal["paper"] | None = None,
) -> Strategy:
    """Pareto Optimization Strategy (Eq. 6) with the Magnitude Enhancement Operation (Eq. 13), guarded.

    The paper's formula swaps the two norms of orthogonal gradients, so that a handful of confident pixels can
    drive the whole update. The guards give the uniform average where that would do harm; ``preset="paper"``
    is the paper to the letter.

    Args:
        meo: stretch the update to the norm of the uniform average.
        meo_max_gain: upper bound of MEO's lambda (>= 1); None is the paper's, unbounded.
        min_norm_ratio: uniform while norm(g_u) < min_norm_ratio * norm(g_s). Orthogonal gradients swap their
            norms, so that the unsupervised weight stays below about 1 / (2 min_norm_ratio).
        conflict_only: uniform while the uniform average itself conflicts with neither gradient. The sign of
            <g_s, g_u> alone is noise where the two are orthogonal but for the batch.
        preset: "paper" removes every guard.

    Returns:
        The strategy. Its weights already contain lambda.
    """
    if preset not in (None, "paper"):
        raise ValueError(f"pos knows the preset 'paper' alone, not {preset!r}")
    if preset == "paper":
        meo_max_gain, min_norm_ratio, conflict_only = None, 0.0, False

    @scale_free
    def strategy(gramian: Gramian) -> Weights:
        a, c, b = gramian
        weights, square = min_norm(gramian)
        gain = meo_gain(gramian, weights, square).clamp_max(meo_max_gain or torch.inf) if meo else 1
        guarded = c.sqrt() < min_norm_ratio * a.sqrt()
        if conflict_only:
            guarded = guarded | (torch.minimum(a, c) + b >= 0)
        return torch.where(guarded, 0.5, gain * weights[0]), torch.where(guarded, 0.5, gain * weights[1])

    return strategy


@scale_free
def pcgrad(gramian: Gramian) -> Weights:
    """PCGrad: in conflict each gradient loses its part along the other; then both are summed."""
    a, c, b = gramian
    conflict = b.clamp_max(0)
    return 1 - conflict / a, 1 - conflict / c


@scale_free
def upgrad(gramian: Gramian) -> Weights:
    """UPGrad with equal preferences: for two objectives half of PCGrad."""
    supervised_weight, unsupervised_weight = pcgrad(gramian)
    return supervised_weight / 2, unsupervised_weight / 2


@scale_free
def dualproj(gramian: Gramian) -> Weights:
    """DualProj: the mean gradient, projected on the cone of vectors that conflict with neither."""
    a, c, b = gramian
    return (-b / (2 * a)).clamp_min(0.5), (-b / (2 * c)).clamp_min(0.5)


@scale_free
def imtl_g(gramian: Gramian) -> Weights:
    """IMTL-G: the affine combination with equal projections on both unit gradients; the cosine cancels."""
    p, q = gramian.supervised.sqrt(), gramian.unsupervised.sqrt()
    return q / (p + q), p / (p + q)


@scale_free
def config(gramian: Gramian) -> Weights:
    """ConFIG: along the bisector of the unit gradients, as long as the sum of both projections on it."""
    p, q = gramian.supervised.sqrt(), gramian.unsupervised.sqrt()
    return (p + q) / (2 * p), (p + q) / (2 * q)


@scale_free
def nash_mtl(gramian: Gramian) -> Weights:
    """Nash-MTL: the bargaining solution G w = 1/w, along the bisector of the unit gradients.

    The published update has norm sqrt(2) whatever the gradients are; it is scaled here to the norm of the
    uniform average, as Eq. 13 does, so that the learning rate and a loss scale keep their meaning.
    """
    a, c, b = gramian
    p, q = a.sqrt(), c.sqrt()
    mean = (a + 2 * b + c).clamp_min(0).sqrt() / 2
    bisector = (2 + 2 * b / (p * q)).clamp_min(0).sqrt().clamp_min(CANCELLED)
    return mean / (p * bisector), mean / (q * bisector)


@scale_free
def aligned_mtl(gramian: Gramian) -> Weights:
    """Aligned-MTL (scale mode "min"): sigma_min G^(-1/2) (1/2, 1/2), with the square root of a 2 x 2 matrix.

    Equal gradients, where the published method drops the vanishing singular value, get (1/2, 1/2).
    """
    a, c, b = gramian
    trace = a + c
    root = ((a.sqrt() * c.sqrt() - b) * (a.sqrt() * c.sqrt() + b)).clamp_min(0).sqrt()
    largest = (trace + torch.hypot(a - c, 2 * b)) / 2
    factor = 0.5 / (largest.sqrt() * (trace + 2 * root).sqrt())
    equal = trace - 2 * b <= EQUAL * trace
    return torch.where(equal, 0.5, factor * (c + root - b)), torch.where(equal, 0.5, factor * (a + root - b))


def cagrad(c: float = 0.4) -> Strategy:
    """CAGrad: the best worst-case improvement within a ball of radius c |mean| around the mean.

    The dual, min over x of <g_x, mean> + c |mean| |g_x| with g_x = x g_s + (1-x) g_u, is solved in closed
    form: |g_x|^2 is a parabola around the minimum-norm point, so that its stationary point is a quadratic's
    root. The update is not divided by 1 + c^2, as it is in some implementations.

    Args:
        c: radius of the ball relative to the mean's norm, in [0, 1).

    Returns:
        The strategy.
    """

    @scale_free
    def strategy(gramian: Gramian) -> Weights:
        a, u, b = gramian
        (x_min, _), _ = min_norm(gramian)
        distance = a + u - 2 * b
        limit = a.sqrt() * u.sqrt()
        height = ((limit - b) * (limit + b) / distance).clamp_min(0).sqrt()
        slope = (a - u) / 2
        radius = c * (a + 2 * b + u).clamp_min(0).sqrt() / 2
        discriminant = radius**2 * distance - slope**2
        vertex = (u - b) / distance
        stationary = (vertex - slope * height / (distance * discriminant).sqrt()).clamp(0, 1)
        x = torch.where(discriminant > 0, stationary, (slope <= 0).double())
        x = torch.where(distance <= EQUAL * (a + u), x_min, x)
        norm = Gramian(a, u, b).norm(x, 1 - x)
        gain = radius / torch.maximum(norm, CANCELLED * (x * a.sqrt() + (1 - x) * u.sqrt()))
        return 0.5 + gain * x, 0.5 + gain * (1 - x)

    return strategy


STRATEGIES: dict[str, Strategy] = {
    "uniform": uniform,
    "pcgrad": pcgrad,
    "upgrad": upgrad,
    "dualproj": dualproj,
    "imtl_g": imtl_g,
    "config": config,
    "nash_mtl": nash_mtl,
    "aligned_mtl": aligned_mtl,
}
STRATEGY_FAMILIES: dict[str, Callable[..., Strategy]] = {"fixed": fixed, "pos": pos, "cagrad": cagrad}


def get_strategy(name: str, **options: Any) -> Strategy:
    """Look a strategy up by name.

    Args:
        name: a key of ``STRATEGIES`` or ``STRATEGY_FAMILIES``.
        options: arguments of a family, for example ``preset="paper"`` of ``pos``.

    Returns:
        The strategy.

    Raises:
        ValueError: the name or an option is unknown; the message names the nearest known one.
    """
    if name in STRATEGY_FAMILIES:
        try:
            return STRATEGY_FAMILIES[name](**options)
        except TypeError as error:
            raise ValueError(f"strategy {name!r} does not take these options {options}: {error}") from error
    if name in STRATEGIES:
        if options:
            raise ValueError(f"strategy {name!r} takes no options, but got {sorted(options)}")
        return STRATEGIES[name]
    known = [*STRATEGIES, *STRATEGY_FAMILIES]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    raise ValueError(
        f"unknown strategy {name!r}: did you mean {nearest!r}? Known are {', '.join(sorted(known))}"
    )
