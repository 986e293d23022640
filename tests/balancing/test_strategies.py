import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation
from torchjd.linalg import QuadprogProjector

from pos_hf.balancing import STRATEGIES, Fixed, Gramian, get_strategy, pos, uniform
from pos_hf.balancing.strategies import cagrad

PAPER = pos(min_weight=0)
PLAIN_POS = pos(meo=False, min_weight=0)
ALTERNATIVES = {name: get_strategy(name) for name in STRATEGIES if name not in ("uniform", "fixed", "pos")}
ALL = {"pos": pos(), "pos paper": PAPER, "pos without MEO": PLAIN_POS, "uniform": uniform, **ALTERNATIVES}
# These promise no negative inner product with either gradient. A bounded pos does not (it is the average at
# the other end), nor does aligned_mtl (<h, g_s> has the sign of sqrt(det) + a + b).
NON_CONFLICTING = ["pos paper", "pos without MEO", "pcgrad", "dualproj", "imtl_g"]
NON_CONFLICTING += ["conflict_free", "nash_mtl"]


def pair(log_ratio: float, cosine: float, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Two gradients in the plane with the given angle; |g_s| = scale, |g_u| = scale * 10 ** log_ratio."""
    g_s = torch.tensor([scale, 0.0], dtype=torch.float64)
    sine = (1 - cosine**2) ** 0.5
    g_u = scale * 10**log_ratio * torch.tensor([cosine, sine], dtype=torch.float64)
    return g_s, g_u


def gramian_of(g_s: Tensor, g_u: Tensor) -> Gramian:
    return Gramian(g_s @ g_s, g_u @ g_u, g_s @ g_u)


def update(strategy, g_s: Tensor, g_u: Tensor) -> Tensor:
    w_s, w_u = strategy(gramian_of(g_s, g_u))
    return w_s * g_s + w_u * g_u


def random_pairs(count: int, decades: float, dimension: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        g_s, g_u = torch.randn(2, dimension, generator=generator, dtype=torch.float64)
        yield g_s, g_u * 10 ** (decades * (torch.rand(1, generator=generator, dtype=torch.float64) - 0.5))


angles = st.floats(-0.999, 0.999)
ratios = st.floats(-4, 4)


@given(ratios, angles)
def test_min_norm_weights_equal_a_brute_force_search_over_alpha(log_ratio, cosine):
    g_s, g_u = pair(log_ratio, cosine)
    alphas = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    norms = ((1 - alphas) * g_s + alphas * g_u).norm(dim=1)
    found = update(PLAIN_POS, g_s, g_u).norm()
    # the grid can only miss the minimum by its own step
    assert found <= norms.min() * (1 + 1e-12)
    assert found >= norms.min() - (g_s - g_u).norm() / 20_000


@given(ratios, angles)
def test_pos_follows_the_three_cases_of_equation_6(log_ratio, cosine):
    g_s, g_u = pair(log_ratio, cosine)
    w_s, w_u = (weight.item() for weight in PLAIN_POS(gramian_of(g_s, g_u)))
    ratio = (g_u.norm() / g_s.norm()).item()
    if cosine >= ratio:
        assert (w_s, w_u) == (0, 1)
    elif cosine >= 1 / ratio:
        assert (w_s, w_u) == (1, 0)
    else:
        expected = ((g_s - g_u) @ g_s / (g_u - g_s).norm() ** 2).item()
        assert w_u == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert w_s == pytest.approx(1 - expected, rel=1e-9, abs=1e-12)


@given(ratios, angles)
def test_meo_gives_the_update_the_norm_of_the_uniform_average(log_ratio, cosine):
    g_s, g_u = pair(log_ratio, cosine)
    assert update(PAPER, g_s, g_u).norm().item() == pytest.approx(((g_s + g_u) / 2).norm().item(), rel=1e-9)


@given(ratios, angles)
def test_meo_gain_is_the_closed_form_and_never_below_one(log_ratio, cosine):
    a, c, b = (number.item() for number in gramian_of(*pair(log_ratio, cosine)))
    gain = sum(PAPER(gramian_of(*pair(log_ratio, cosine)))).item()
    assert gain >= 1
    if b < min(a, c):  # the interior: kappa^2 = 1 + (a - c)^2 / (4 det)
        assert gain**2 == pytest.approx(1 + (a - c) ** 2 / (4 * (a * c - b * b)), rel=1e-6)


def test_orthogonal_gradients_swap_their_norms():
    g_s, g_u = torch.tensor([8.0, 0]).double(), torch.tensor([0, 2.0]).double()
    torch.testing.assert_close(update(PAPER, g_s, g_u), torch.tensor([1.0, 4.0]).double())


@pytest.mark.parametrize("name", NON_CONFLICTING)
def test_update_never_points_against_either_gradient(name):
    for g_s, g_u in random_pairs(300, decades=8):
        step = update(ALL[name], g_s, g_u)
        assert step @ g_s >= -1e-12 * step.norm() * g_s.norm()
        assert step @ g_u >= -1e-12 * step.norm() * g_u.norm()


@pytest.mark.parametrize("name", ALL)
def test_swapping_the_gradients_swaps_the_weights(name):
    for g_s, g_u in random_pairs(100, decades=6):
        w_s, w_u = ALL[name](gramian_of(g_s, g_u))
        v_u, v_s = ALL[name](gramian_of(g_u, g_s))
        torch.testing.assert_close(torch.stack([w_s, w_u]), torch.stack([v_s, v_u]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 65536.0, 1e30])
def test_weights_do_not_depend_on_a_common_scale(name, scale):
    for log_ratio, cosine in itertools.product([-2, 0.1, 1], [-0.9, 0.0, 0.5]):
        expected = torch.stack(ALL[name](gramian_of(*pair(log_ratio, cosine))))
        scaled = torch.stack(ALL[name](gramian_of(*pair(log_ratio, cosine, scale))))
        torch.testing.assert_close(scaled, expected, rtol=1e-9, atol=1e-12)


EXACT = QuadprogProjector(norm_eps=0.0, reg_eps=0.0)
ORACLES = {
    "pcgrad": (aggregation.PCGrad(), 1e-6),
    "dualproj": (aggregation.DualProj(projector=EXACT), 1e-6),
    "imtl_g": (aggregation.IMTLG(), 1e-6),
    "conflict_free": (aggregation.ConFIG(), 1e-6),
    "aligned_mtl": (aggregation.AlignedMTL(), 1e-6),
    "pos without MEO": (aggregation.MGDA(epsilon=1e-12, max_iters=1000), 1e-6),
}


@pytest.mark.parametrize("name", ORACLES)
def test_strategy_agrees_with_torchjd_over_eight_decades_of_norm_ratio(name):
    oracle, tolerance = ORACLES[name]
    for g_s, g_u in random_pairs(200, decades=8):
        expected = oracle(torch.stack([g_s, g_u]))
        assert (update(ALL[name], g_s, g_u) - expected).norm() <= tolerance * expected.norm()


def test_half_of_pcgrad_is_upgrad():
    oracle = aggregation.UPGrad(projector=EXACT)
    for g_s, g_u in random_pairs(200, decades=8):
        expected = oracle(torch.stack([g_s, g_u]))
        assert (update(ALL["pcgrad"], g_s, g_u) / 2 - expected).norm() <= 1e-6 * expected.norm()


def test_cagrad_agrees_with_torchjd_to_its_solver_tolerance():
    # torchjd's interior-point solver stops at 1e-4, and is mostly right to 1e-8
    oracle = aggregation.CAGrad(c=0.5, norm_eps=0.0)
    errors = []
    for g_s, g_u in random_pairs(100, decades=8):
        expected = oracle(torch.stack([g_s, g_u]))
        errors.append(((update(cagrad(0.5), g_s, g_u) - expected).norm() / expected.norm()).item())
    assert max(errors) <= 1e-4
    assert sorted(errors)[50] <= 1e-7


def test_cagrad_solves_its_dual_better_than_a_grid():
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    for g_s, g_u in random_pairs(100, decades=8):
        mean = (g_s + g_u) / 2
        radius = 0.5 * mean.norm()

        def dual(g_x: Tensor, mean: Tensor = mean, radius: Tensor = radius) -> Tensor:
            return g_x @ mean + radius * g_x.norm(dim=-1)

        step = update(cagrad(0.5), g_s, g_u) - mean
        assert step.norm() <= radius * (1 + 1e-9)
        w_s, w_u = cagrad(0.5)(gramian_of(g_s, g_u))
        chosen = (w_s - 0.5) / (w_s + w_u - 1)
        best = dual(x * g_s + (1 - x) * g_u).min()
        assert dual(chosen * g_s + (1 - chosen) * g_u) <= best + 1e-12 * (g_s.norm() + g_u.norm()) ** 2


def test_nash_weights_solve_the_bargaining_equation_up_to_their_common_scale():
    for g_s, g_u in random_pairs(200, decades=8):
        w_s, w_u = ALL["nash_mtl"](gramian_of(g_s, g_u))
        step = w_s * g_s + w_u * g_u
        # G w = 1/w for some scale of w: both products w_i <g_i, update> are equal
        torch.testing.assert_close(w_s * (g_s @ step), w_u * (g_u @ step), rtol=1e-7, atol=0)
        assert step.norm().item() == pytest.approx(((g_s + g_u) / 2).norm().item(), rel=1e-7)


def weights(strategy, a: float, c: float, b: float) -> list[float]:
    numbers = (torch.tensor(float(number), dtype=torch.float64) for number in (a, c, b))
    return [weight.item() for weight in strategy(Gramian(*numbers))]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("a", "c"), [(1, 0), (0, 1), (0, 0)])
def test_an_absent_objective_gets_the_uniform_average(name, a, c):
    assert weights(ALL[name], a, c, 0) == [0.5, 0.5]


@pytest.mark.parametrize("strategy", [pos(), PAPER, PLAIN_POS])
def test_equal_gradients_get_equal_weights(strategy):
    assert weights(strategy, 2, 2, 2) == [0.5, 0.5]


def test_opposite_gradients_give_an_update_that_goes_to_zero():
    norms = []
    for angle in (1e-2, 1e-4, 1e-6, 1e-8, 0):
        direction = torch.tensor([torch.pi - angle], dtype=torch.float64)
        g_s = torch.tensor([1.0, 0.0], dtype=torch.float64)
        g_u = 0.5 * torch.cat([direction.cos(), direction.sin()])
        norms.append(update(PAPER, g_s, g_u).norm().item())
    assert norms == sorted(norms, reverse=True)
    assert norms[0] == pytest.approx(0.25, rel=1e-3)
    assert norms[-1] < 1e-9


@pytest.mark.parametrize("name", ALL)
def test_weights_are_continuous_where_a_clamp_begins(name):
    for log_ratio, cosine in [(-1.0, 0.1), (1.0, 0.1), (0.0, 0.0), (-2.0, 0.0)]:
        before, after = (
            torch.tensor(weights(ALL[name], *gramian_of(*pair(log_ratio, cosine + shift))))
            for shift in (-1e-9, 1e-9)
        )
        torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [name for name in ALL if name != "uniform"])
def test_a_number_that_is_not_finite_reaches_both_weights_as_nan(name, place, value):
    numbers = [1.0, 4.0, -0.5]
    numbers[place] = value
    assert all(weight != weight for weight in weights(ALL[name], *numbers))


@pytest.mark.parametrize("name", [name for name in ALL if name != "uniform"])
def test_adversarial_gramians_give_finite_weights_or_two_nans(name):
    # all 100,000 at once: every strategy is elementwise
    generator = torch.Generator().manual_seed(1)
    special = torch.tensor([0.0, 5e-324, 1e-310, 1e-30, 1.0, 1e30, torch.nan, torch.inf], dtype=torch.float64)
    count = 100_000
    a, c = special[torch.randint(8, (2, count), generator=generator)]
    random = 10 ** (60 * torch.rand(2, count, generator=generator, dtype=torch.float64) - 30)
    a, c = torch.where(torch.rand(2, count, generator=generator) < 0.5, torch.stack([a, c]), random)
    cosine = torch.empty(count, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    cosine[: count // 4] = torch.tensor([-1.0, 1.0, 0.0, 1 - 1e-16, -1 + 1e-16]).double().repeat(count // 20)
    b = cosine * a.sqrt() * c.sqrt()
    w_s, w_u = ALL[name](Gramian(a, c, b))
    finite = a.isfinite() & c.isfinite() & b.isfinite()
    assert (w_s.isfinite() & w_u.isfinite())[finite].all()
    assert (w_s.isnan() & w_u.isnan())[~finite].all()
    if name == "pos without MEO":
        # min-norm <= uniform norm, with room for the rounding of nearly opposite gradients
        ok = finite & (a > 0) & (c > 0)
        gramian = Gramian(a[ok] / a[ok], c[ok] / a[ok], b[ok] / a[ok])
        bound = (1 + 1e-9) * gramian.norm(*uniform(gramian)) + 1e-7 * (1 + gramian.unsupervised.sqrt())
        assert (gramian.norm(w_s[ok], w_u[ok]) <= bound)[gramian.unsupervised.isfinite()].all()


bounds = st.floats(0, 0.5)


@given(ratios, angles, bounds, st.booleans())
def test_bounded_pos_equals_a_search_between_its_bounds(log_ratio, cosine, min_weight, meo):
    """Eq. 5 on [m, 1 - m] by ternary search over the norm, then Eq. 13."""
    g_s, g_u = pair(log_ratio, cosine)
    low, high = min_weight, 1 - min_weight
    for _ in range(60):
        third = (high - low) / 3
        left, right = (((1 - x) * g_s + x * g_u).norm() for x in (low + third, high - third))
        low, high = (low, high - third) if left < right else (low + third, high)
    shortest = (1 - low) * g_s + low * g_u
    gain = ((g_s + g_u) / 2).norm() / shortest.norm() if meo else 1
    found = update(pos(meo=meo, min_weight=min_weight), g_s, g_u)
    assert (found - gain * shortest).norm() <= 1e-5 * gain * (g_s.norm() + g_u.norm())
    # the search stops where float64 sees no difference of norms: ours must be no longer
    assert (found / gain).norm() <= shortest.norm() * (1 + 1e-9)


@given(ratios, angles, st.booleans())
def test_pos_bounded_by_one_half_is_the_uniform_average_bit_for_bit(log_ratio, cosine, meo):
    assert weights(pos(meo=meo, min_weight=0.5), *gramian_of(*pair(log_ratio, cosine))) == [0.5, 0.5]


@pytest.mark.parametrize("min_weight", [0.05, 0.25, 0.4])
def test_a_vanishing_gradient_leaves_the_update_of_the_average(min_weight):
    for log_ratio in (-6, -9):
        g_s, g_u = pair(log_ratio, 0.3)
        w_s, w_u = weights(pos(min_weight=min_weight), *gramian_of(g_s, g_u))
        assert w_u == pytest.approx((1 - min_weight) / (2 * min_weight), rel=1e-3)
        average = (g_s + g_u) / 2
        assert (w_s * g_s + w_u * g_u - average).norm() <= 20 * g_u.norm()


@given(ratios, st.floats(-0.99, 0.99), bounds, st.sampled_from(range(3)), st.sampled_from([-1, 1]))
def test_weights_are_continuous_in_the_gramian(log_ratio, cosine, min_weight, place, sign):
    numbers = [number.item() for number in gramian_of(*pair(log_ratio, cosine))]
    moved = list(numbers)
    # a change of the cross term is measured by what it could be
    scale = [numbers[0], numbers[1], (numbers[0] * numbers[1]) ** 0.5][place]
    moved[place] += sign * 1e-6 * scale
    before, after = (torch.tensor(weights(pos(min_weight=min_weight), *n)) for n in (numbers, moved))
    assert ((after - before).abs() <= 1e-3 * before.abs().clamp_min(1)).all()


@pytest.mark.parametrize("ratio", [-2.0, -0.3, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("cosine", [-0.9, -0.1, 0.0, 0.5])
@pytest.mark.parametrize("min_weight", [0.0, 0.25, 0.4])
def test_the_bound_holds_where_the_unbounded_solution_lies_outside(ratio, cosine, min_weight):
    gramian = gramian_of(*pair(ratio, cosine))
    free = weights(PLAIN_POS, *gramian)[1]
    held = pos(min_weight=min_weight).bound_holds(gramian).item()
    assert held == (not min_weight < free < 1 - min_weight)


def test_a_bound_outside_its_interval_is_refused():
    with pytest.raises(ValueError, match=r"min_weight must lie in \[0, 0.5\]"):
        pos(min_weight=0.6)


def test_fixed_weights_are_what_they_say():
    assert weights(Fixed(1.0, 0.25), 3, 2, 1) == [1.0, 0.25]
    assert weights(uniform, 3, 2, 1) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("poss", {}, "did you mean 'pos'"),
        ("pcgrd", {}, "did you mean 'pcgrad'"),
        ("pos", {"min_weight": 0.6}, "min_weight is 0.6, but must lie"),
        ("pos", {"gain": 2}, "gain"),
        ("uniform", {"meo": True}, "'meo' of strategy 'uniform', which takes none"),
    ],
)
def test_an_unknown_name_or_option_is_answered_with_the_known_ones(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_strategy(name, **options)


def test_every_name_can_be_looked_up():
    fixed = get_strategy("fixed", supervised=1.0, unsupervised=0.5)
    found = {name: fixed if name == "fixed" else get_strategy(name) for name in STRATEGIES}
    assert len(set(found.values())) == len(STRATEGIES)
    assert found["uniform"] is uniform and found["pos"] == pos() and fixed == Fixed(1.0, 0.5)
