"""The estimates against gradients drawn from known normal distributions, and a brute-force loop."""

import math

import pytest
import torch
from torch import Tensor

from pos_hf.balancing.conflict import Conflict, _student_quantile, estimate_conflict, gram_matrix

DIMENSIONS, BATCHES, NORM_RATIO, REPETITIONS = 80, 24, 0.7, 1500


def draw(
    cosine: float, noise: tuple[float, float], repetitions: int = REPETITIONS, batches: int = BATCHES
) -> tuple[Tensor, Tensor]:
    """Gradients [R, K, P] around full ones of norms 1 and `NORM_RATIO`; `noise` is each trace.

    The standard deviations differ from coordinate to coordinate by a factor of four.
    """
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(1, 4, DIMENSIONS, dtype=torch.float64)
    scale /= scale.norm()
    full = torch.zeros(2, DIMENSIONS, dtype=torch.float64)
    full[0, 10], full[1, 10], full[1, 60] = 1, NORM_RATIO * cosine, NORM_RATIO * math.sqrt(1 - cosine**2)
    shape = (2, repetitions, batches, DIMENSIONS)
    noises = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    s, u = (mean + noises[i] * noise[i] ** 0.5 for i, mean in enumerate(full))
    return s, u


def estimated(s: Tensor, u: Tensor) -> Conflict:
    return estimate_conflict(s @ s.mT, u @ u.mT, s @ u.mT)


@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.6])
@pytest.mark.parametrize("noise", [(1.0, 0.5), (8.0, 2.0)], ids=["clear", "noisy"])
def test_intervals_cover_the_truth_in_95_percent_of_repetitions(cosine, noise):
    conflict = estimated(*draw(cosine, noise))
    truths = {
        "cosine": cosine,
        "norm_ratio": NORM_RATIO,
        "trace_ratio": noise[0] / noise[1],
        "product": cosine * NORM_RATIO,
        "supervised_square": 1.0,
        "unsupervised_trace": noise[1],
    }
    for name, truth in truths.items():
        _, low, high = getattr(conflict, name)
        coverage = ((low <= truth) & (truth <= high))[~low.isnan()].double().mean().item()
        # 1500 repetitions give 0.95 +- 0.011 (two standard deviations); noise makes intervals wider
        assert 0.935 <= coverage <= 0.985, (name, coverage)


@pytest.mark.parametrize("noise", [(1.0, 0.5), (8.0, 2.0)], ids=["clear", "noisy"])
def test_squares_product_and_traces_are_unbiased(noise):
    conflict = estimated(*draw(-0.4, noise, repetitions=3000))
    truths = {
        "supervised_square": 1.0,
        "unsupervised_square": NORM_RATIO**2,
        "product": -0.4 * NORM_RATIO,
        "supervised_trace": noise[0],
        "unsupervised_trace": noise[1],
    }
    for name, truth in truths.items():
        assert getattr(conflict, name).value.mean().item() == pytest.approx(truth, rel=0.02), name


def test_one_batch_mistakes_noise_for_conflict_where_the_full_gradients_agree():
    conflict = estimated(*draw(0.6, (30.0, 30.0), repetitions=200, batches=48))
    assert conflict.negative_share.mean() > 0.4
    assert conflict.batch_cosine.mean() < 0.05
    assert conflict.cosine.value.nanmean().item() == pytest.approx(0.6, abs=0.06)


def test_a_full_gradient_lost_in_noise_has_no_cosine():
    conflict = estimated(*draw(0.0, (1000.0, 1.0), repetitions=200))
    assert conflict.cosine.value.isnan().double().mean() > 0.9
    assert conflict.product.low.isfinite().all()


def test_no_confident_pixel_gives_no_cosine_and_no_error():
    s, _ = draw(0.0, (1.0, 1.0), repetitions=1)
    conflict = estimated(s, torch.zeros_like(s))
    assert conflict.unsupervised_square.value.item() == 0
    assert conflict.cosine.value.isnan().all() and conflict.batch_cosine.isnan().all()
    assert conflict.negative_share.item() == 0


def brute_force(s: Tensor, u: Tensor) -> dict[str, float]:
    """Means over pairs of batches, one pair at a time."""
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]

    def mean(values: list) -> float:
        return math.fsum(float(value) for value in values) / len(values)

    def cosine(x: Tensor, y: Tensor) -> float:
        return float(x @ y / (x.norm() * y.norm()))

    ss, uu, su = (mean([x[i] @ y[j] for i, j in pairs]) for x, y in ((s, s), (u, u), (s, u)))
    own = [cosine(x, y) for x, y in zip(s, u, strict=True)]
    center_s, center_u = s.mean(0), u.mean(0)
    return {
        "supervised_square": ss,
        "unsupervised_square": uu,
        "product": su,
        "supervised_trace": sum(float((x - center_s).square().sum()) for x in s) / (len(s) - 1),
        "unsupervised_trace": sum(float((x - center_u).square().sum()) for x in u) / (len(u) - 1),
        "cosine": su / math.sqrt(ss * uu),
        "norm_ratio": math.sqrt(uu / ss),
        "batch_cosine": mean(own),
        "negative_share": mean([value < 0 for value in own]),
        "supervised_cosine": mean([cosine(s[i], s[j]) for i, j in pairs]),
        "unsupervised_cosine": mean([cosine(u[i], u[j]) for i, j in pairs]),
    }


def test_the_estimates_equal_a_loop_over_pairs_and_over_left_out_batches(monkeypatch):
    monkeypatch.setattr("pos_hf.balancing.conflict.COLUMNS", 7)  # 80 columns: several blocks and a rest
    (s,), (u,) = draw(-0.4, (1.0, 0.5), repetitions=1, batches=16)
    stack = torch.cat([s, u]).float()
    products = gram_matrix(stack)
    s, u = stack.double().split(16)
    conflict = estimate_conflict(products[:16, :16], products[16:, 16:], products[:16, 16:])
    for name, expected in brute_force(s, u).items():
        found = getattr(conflict, name)
        assert float(getattr(found, "value", found)) == pytest.approx(expected, rel=1e-9), name

    rest = [torch.arange(16) != k for k in range(16)]
    left_out = torch.tensor([brute_force(s[keep], u[keep])["cosine"] for keep in rest], dtype=torch.float64)
    error = math.sqrt(15 / 16 * (left_out - left_out.mean()).square().sum())
    half = 2.13145 * error  # Student's t of 15 degrees, from a table
    assert conflict.cosine.high.item() - conflict.cosine.value.item() == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize(("degrees", "quantile"), [(15, 2.13145), (31, 2.03951), (63, 1.99834)])
def test_students_quantile_agrees_with_the_table(degrees, quantile):
    assert _student_quantile(degrees) == pytest.approx(quantile, abs=1e-3)
