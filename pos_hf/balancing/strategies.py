"""How two gradients are integrated: a strategy is a pure function of their Gramian. No gradient lives here.

The update is ``w_s g_s + w_u g_u``. Below a = <g_s,g_s>, c = <g_u,g_u>, b = <g_s,g_u>, p and q are the two
norms and t = b/pq is the cosine.

| strategy | weights from | source |
|---|---|---|
| ``uniform``, ``fixed`` | constants | Sun et al., ICCV 2025, Eq. 4 |
| ``pos`` | minimum norm within bounds, then MEO | Sun et al., ICCV 2025, Eq. 6 and 13; MGDA, Désidéri 2012 |
| ``pcgrad`` | projection of each on the other | Yu et al., NeurIPS 2020 |
| ``dualproj`` | projection of the mean on the dual cone | Lopez-Paz & Ranzato, NeurIPS 2017 (GEM) |
| ``cagrad`` | worst objective near the mean | Liu et al., NeurIPS 2021 |
| ``imtl_g`` | bisector; equal projections | Liu et al., ICLR 2021 |
| ``conflict_free`` | bisector; summed projections (ConFIG) | Liu et al., ICLR 2025 |
| ``nash_mtl`` | bisector; Nash bargaining | Navon et al., ICML 2022 |
| ``aligned_mtl`` | equal singular values | Senushkin et al., CVPR 2023 |

For two objectives UPGrad (Quinton & Rey, 2024) is half of ``pcgrad``. A user's own strategy is any function
of a Gramian that returns two 0-d tensors.

All arithmetic is scale-free: the three numbers are divided by the larger squared norm, the cross term is
clamped by Cauchy-Schwarz, and no epsilon is added. Where one gradient is exactly zero (no confident pixel,
say) every strategy gives the uniform average; Eq. 6 to the letter would make no update then. A number that
is not finite gives two NaN weights, so that the loss scaler or the trainer skips the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import torch
from torch import Tensor

from pos_hf.named import build

from .gramian import CANCELLED, Gramian

Weights = tuple[Tensor, Tensor]
Strategy = Callable[[Gramian], Weights]

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

    supervised: Annotated[float, "[0, 1e6]"]
    unsupervised: Annotated[float, "[0, 1e6]"]

    def __call__(self, gramian: Gramian) -> Weights:
        """The two constants as 0-d tensors on the Gramian's device."""
        return (
            torch.full_like(gramian.supervised, self.supervised),
            torch.full_like(gramian.supervised, self.unsupervised),
        )


uniform = Fixed(0.5, 0.5)
fixed = Fixed


def min_norm_weight(gramian: Gramian) -> Tensor:
    """alpha^u of Eq. 5 without its bounds: where the line through the two gradients is nearest to the origin.

    Args:
        gramian: both gradients non-zero.

    Returns:
        alpha^u, 0-d, below 0 or above 1 where one gradient is the shortest vector between them. Equal
        gradients get 1/2.
    """
    a, c, b = gramian
    distance = a + c - 2 * b
    return torch.where(distance <= EQUAL * (a + c), 0.5, (a - b) / distance)


def min_norm(gramian: Gramian, min_weight: float = 0.0) -> tuple[Weights, Tensor]:
    """The shortest vector in the convex hull of the two gradients (Eq. 5) in closed form (Eq. 6).

    Args:
        gramian: normalised, both gradients non-zero.
        min_weight: Eq. 5's constraint alpha^s, alpha^u >= 0 with this number in place of 0.

    Returns:
        ((alpha^s, alpha^u), norm of the vector), 0-d tensors.
    """
    a, c, b = gramian
    free = min_norm_weight(gramian)
    alpha_u = free.clamp(min_weight, 1 - min_weight)
    limit = a.sqrt() * c.sqrt()
    # between opposite gradients the quadratic form cancels; the height of their triangle does not
    height = ((limit - b) * (limit + b) / (a + c - 2 * b)).sqrt()
    cancels = (b < 0) & (free > min_weight) & (free < 1 - min_weight)
    return (1 - alpha_u, alpha_u), torch.where(cancels, height, gramian.norm(1 - alpha_u, alpha_u))


def meo_gain(gramian: Gramian, weights: Weights, norm: Tensor) -> Tensor:
    """MEO's lambda (Eq. 13): the norm of the uniform average over the norm of the minimum-norm vector, >= 1.

    Near opposite gradients the minimum-norm vector is what rounding has left of a cancellation; there its
    norm is taken as ``CANCELLED`` times what it is made of, so that the update goes to zero continuously.

    Args:
        gramian: normalised.
        weights: (alpha^s, alpha^u) of `min_norm`.
        norm: of the minimum-norm vector, 0-d.

    Returns:
        lambda, 0-d.
    """
    half = torch.full_like(norm, 0.5)
    made_of = weights[0] * gramian.supervised.sqrt() + weights[1] * gramian.unsupervised.sqrt()
    return (gramian.norm(half, half) / torch.maximum(norm, CANCELLED * made_of)).clamp_min(1)


@dataclass(frozen=True)
class POS:
    """Pareto Optimization Strategy (Eq. 6) with the Magnitude Enhancement Operation (Eq. 13).

    The paper's formula swaps the norms of orthogonal gradients, so that whichever is tiny (a handful of
    confident pixels early, memorised labels late) drives the update. One number leads from the paper to the
    average: Eq. 5's constraint alpha^s, alpha^u >= 0 becomes alpha^s, alpha^u >= min_weight. The problem
    stays convex, its solution is Eq. 6 clamped to [min_weight, 1 - min_weight], and the weights stay
    continuous.

    Args:
        meo: stretch the update to the norm of the uniform average.
        min_weight: lower bound of both weights before MEO, in [0, 1/2]: 0 is the paper to the letter, 1/2 the
            uniform average. With MEO a gradient that vanishes is weighted (1 - min_weight) / (2 min_weight).
    """

    meo: bool = True
    min_weight: Annotated[float, "[0, 0.5]"] = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.min_weight <= 0.5:
            raise ValueError(f"min_weight must lie in [0, 0.5], not be {self.min_weight}")

    def __call__(self, gramian: Gramian) -> Weights:
        """The two weights, 0-d float64; lambda is in them."""
        return scale_free(self._weights)(gramian)

    def _weights(self, gramian: Gramian) -> Weights:
        (alpha_s, alpha_u), norm = min_norm(gramian, self.min_weight)
        gain = meo_gain(gramian, (alpha_s, alpha_u), norm) if self.meo else 1
        return gain * alpha_s, gain * alpha_u

    def bound_holds(self, gramian: Gramian) -> Tensor:
        """Whether `min_weight` decided the weights of this Gramian, 0-d bool."""
        free = min_norm_weight(gramian)
        return (free <= self.min_weight) | (free >= 1 - self.min_weight)


pos = POS


@scale_free
def pcgrad(gramian: Gramian) -> Weights:
    """PCGrad: in conflict each gradient loses its part along the other; then both are summed."""
    a, c, b = gramian
    conflict = b.clamp_max(0)
    return 1 - conflict / a, 1 - conflict / c


@scale_free
def dualproj(gramian: Gramian) -> Weights:
    """DualProj: the mean gradient, projected on the cone of vectors that conflict with neither."""
    a, c, b = gramian
    return (-b / (2 * a)).clamp_min(0.5), (-b / (2 * c)).clamp_min(0.5)


def bisector(length: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Strategy:
    """Make a strategy along the bisector of the two unit gradients, u_s + u_u.

    Args:
        length: the factor of u_s + u_u from p, q and the cosine t, 0-d.
    """

    @wraps(length)
    def weights(gramian: Gramian) -> Weights:
        p, q = gramian.supervised.sqrt(), gramian.unsupervised.sqrt()
        factor = length(p, q, gramian.cross / (p * q))
        return factor / p, factor / q

    return scale_free(weights)


@bisector
def imtl_g(p: Tensor, q: Tensor, t: Tensor) -> Tensor:
    """IMTL-G: the affine combination (weights of sum 1) with equal projections on both unit gradients."""
    return p * q / (p + q)


@bisector
def conflict_free(p: Tensor, q: Tensor, t: Tensor) -> Tensor:
    """ConFIG: as long as the sum of both gradients' projections on the bisector."""
    return (p + q) / 2


@bisector
def nash_mtl(p: Tensor, q: Tensor, t: Tensor) -> Tensor:
    """Nash-MTL: the bargaining solution G w = 1/w.

    The published update has norm sqrt(2) whatever the gradients are; it is scaled here to the norm of the
    uniform average, as Eq. 13 does, so that the learning rate and a loss scale keep their meaning.
    """
    mean = (p**2 + 2 * p * q * t + q**2).clamp_min(0).sqrt() / 2
    return mean / (2 + 2 * t).clamp_min(0).sqrt().clamp_min(CANCELLED)


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


def cagrad(c: Annotated[float, "[0, 1)"] = 0.4) -> Strategy:
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
        distance = a + u - 2 * b
        limit = a.sqrt() * u.sqrt()
        height = ((limit - b) * (limit + b) / distance).clamp_min(0).sqrt()
        slope = (a - u) / 2
        radius = c * (a + 2 * b + u).clamp_min(0).sqrt() / 2
        discriminant = radius**2 * distance - slope**2
        vertex = (u - b) / distance
        stationary = (vertex - slope * height / (distance * discriminant).sqrt()).clamp(0, 1)
        x = torch.where(discriminant > 0, stationary, (slope <= 0).double())
        x = torch.where(distance <= EQUAL * (a + u), 0.5, x)
        norm = Gramian(a, u, b).norm(x, 1 - x)
        gain = radius / torch.maximum(norm, CANCELLED * (x * a.sqrt() + (1 - x) * u.sqrt()))
        return 0.5 + gain * x, 0.5 + gain * (1 - x)

    return strategy


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "uniform": lambda: uniform,
    "fixed": Fixed,
    "pos": POS,
    "pcgrad": lambda: pcgrad,
    "dualproj": lambda: dualproj,
    "cagrad": cagrad,
    "imtl_g": lambda: imtl_g,
    "conflict_free": lambda: conflict_free,
    "nash_mtl": lambda: nash_mtl,
    "aligned_mtl": lambda: aligned_mtl,
}


def get_strategy(name: str, **options: Any) -> Strategy:
    """The strategy called `name` with its options.

    Args:
        name: a key of ``STRATEGIES``.
        options: its arguments, for example ``min_weight=0`` of ``pos``.

    Raises:
        InputError: unknown name or option, or a value that does not fit.
    """
    return build("strategy", STRATEGIES, {"name": name, **options})
