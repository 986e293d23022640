"""Every confidence rule against a loop over pixels in float64, and its state through a checkpoint."""

import math

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from pos_hf.errors import InputError
from pos_hf.methods import get_method
from pos_hf.methods.adjustments import DistributionAlignment
from pos_hf.methods.confidence import RULES, get_confidence_rule
from tests.methods.published import pixels

CLASSES, STEPS = 4, 5


def make_steps(seed=0):
    """(labeled logits, labels, unlabeled probabilities, valid) of some steps, ever more confident."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for step in range(STEPS):
        shape = (2, CLASSES, 5, 6)
        logits = (1 + step) * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, CLASSES, (2, 5, 6), generator=generator)
        labels[0, 0, :4] = 255
        valid = torch.ones(2, 5, 6, dtype=torch.bool)
        valid[1, :, 4:] = False
        steps.append((logits[0], labels, logits[1].softmax(1), valid))
    return steps


def feed(rule, steps, first=0):
    """Run the rule over the steps as a method does; the weights of the last one."""
    for number, (logits, labels, probabilities, valid) in enumerate(steps, first):
        rule.observe_labeled(logits, labels)
        rule.observe(probabilities, valid, number / STEPS)
        weights = rule.weights(probabilities)
    return weights


def confidences(probabilities, valid):
    """[(confidence, class)] of the valid pixels, in reading order."""
    values = [probabilities[n, :, i, j].tolist() for n, i, j in pixels(valid) if valid[n, i, j]]
    return [(max(p), p.index(max(p))) for p in values]


def expected_weights(probabilities, weight_of):
    """Apply `weight_of(list of probabilities)` to every pixel."""
    weights = torch.zeros_like(probabilities[:, 0])
    for n, i, j in pixels(weights):
        weights[n, i, j] = weight_of(probabilities[n, :, i, j].tolist())
    return weights


def test_fixed_threshold_keeps_a_confidence_equal_to_it():
    probabilities = torch.tensor([0.75, 0.25], dtype=torch.float64).view(1, 2, 1, 1)
    assert get_confidence_rule(0.75).weights(probabilities).item() == 1
    assert get_confidence_rule(math.nextafter(0.75, 1)).weights(probabilities).item() == 0


def test_percentile_keeps_the_most_certain_share_and_grows_with_progress():
    _, _, probabilities, valid = make_steps()[1]
    rule = get_confidence_rule("percentile")

    def entropy(p):
        return -sum(x * math.log(x) for x in p)

    entropies = sorted(
        entropy(probabilities[n, :, i, j].tolist()) for n, i, j in pixels(valid) if valid[n, i, j]
    )
    for progress, share in [(0.0, 0.8), (0.5, 0.9), (1.0, 1.0)]:
        rule.observe(probabilities, valid, progress)
        position = share * (len(entropies) - 1)
        low, high = entropies[math.floor(position)], entropies[math.ceil(position)]
        limit = low + (high - low) * (position - math.floor(position))
        expected = expected_weights(probabilities, lambda p, limit=limit: float(entropy(p) < limit))
        assert torch.equal(rule.weights(probabilities), expected)


def test_freematch_equals_its_equations():
    steps, m = make_steps(), 0.5
    weights = feed(get_confidence_rule({"name": "freematch", "decay": m}), steps)
    tau, share = 1 / CLASSES, [1 / CLASSES] * CLASSES
    for _, _, probabilities, valid in steps:
        kept = confidences(probabilities, valid)
        tau = m * tau + (1 - m) * sum(c for c, _ in kept) / len(kept)
        for c in range(CLASSES):
            mean = sum(probabilities[n, c, i, j].item() for n, i, j in pixels(valid) if valid[n, i, j]) / len(
                kept
            )
            share[c] = m * share[c] + (1 - m) * mean
    expected = expected_weights(
        probabilities, lambda p: float(max(p) >= tau * share[p.index(max(p))] / max(share))
    )
    assert torch.equal(weights, expected)
    assert 0 < expected.mean() < 1


def test_softmatch_equals_its_truncated_gaussian():
    steps, m = make_steps(), 0.9
    weights = feed(get_confidence_rule({"name": "softmatch", "decay": m}), steps)
    mu, variance = 1 / CLASSES, 1.0
    for _, _, probabilities, valid in steps:
        kept = [c for c, _ in confidences(probabilities, valid)]
        mean = sum(kept) / len(kept)
        mu = m * mu + (1 - m) * mean
        variance = m * variance + (1 - m) * sum((c - mean) ** 2 for c in kept) / (len(kept) - 1)
    expected = expected_weights(
        probabilities, lambda p: 1.0 if max(p) >= mu else math.exp(-4 * (max(p) - mu) ** 2 / (2 * variance))
    )
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-12)
    assert (weights < 1).any() and (weights == 1).any()


def daw_state(steps, m):
    """EMA means and variances of the confidences of correct and wrong labeled pixels."""
    state = {True: [1.0, 1.0], False: [1 / CLASSES, 1.0]}
    for logits, labels, _, _ in steps:
        probabilities = logits.softmax(1)
        groups = {True: [], False: []}
        for n, i, j in pixels(labels):
            if labels[n, i, j] != 255:
                p = probabilities[n, :, i, j].tolist()
                groups[p.index(max(p)) == labels[n, i, j].item()].append(max(p))
        for key, values in groups.items():
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            state[key] = [m * state[key][0] + (1 - m) * mean, m * state[key][1] + (1 - m) * variance]
    return state


def crossing_by_bisection(correct, wrong):
    """Where log N(x; correct) - log N(x; wrong) turns positive, between the means."""

    def advantage(x):
        def log_density(mean, variance):
            return -((x - mean) ** 2) / (2 * variance) - math.log(variance) / 2

        return log_density(*correct) - log_density(*wrong)

    low, high = wrong[0], correct[0]
    assert advantage(low) < 0 < advantage(high)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if advantage(middle) < 0 else (low, middle)
    return (low + high) / 2


def test_daw_threshold_is_the_crossing_of_the_two_gaussians():
    steps, m = make_steps(), 0.5
    rule = get_confidence_rule({"name": "daw", "decay": m})
    weights = feed(rule, steps)
    state = daw_state(steps, m)
    torch.testing.assert_close(rule.means.tolist(), [state[True][0], state[False][0]])
    torch.testing.assert_close(rule.variances.tolist(), [state[True][1], state[False][1]])
    probabilities = steps[-1][2]
    limit = rule.threshold().item()
    assert torch.equal(weights, expected_weights(probabilities, lambda p: float(max(p) >= limit)))


@pytest.mark.parametrize(
    ("correct", "wrong"),
    [((0.9, 0.01), (0.5, 0.02)), ((0.9, 0.02), (0.5, 0.01)), ((0.8, 0.02), (0.6, 0.02))],
    ids=["linear term positive", "linear term negative", "equal variances"],
)
def test_daw_crossing_equals_bisection(correct, wrong):
    rule = get_confidence_rule("daw")
    rule.means, rule.variances = torch.tensor([correct, wrong], dtype=torch.float64).T
    rule.lowest = torch.tensor(0.25, dtype=torch.float64)
    assert rule.threshold().item() == pytest.approx(crossing_by_bisection(correct, wrong), abs=1e-9)


def test_daw_is_unmoved_by_a_batch_without_wrong_or_labeled_pixels():
    rule = get_confidence_rule("daw")
    logits, labels, _, _ = make_steps()[0]
    rule.observe_labeled(logits, labels)
    means, variances = rule.means.clone(), rule.variances.clone()
    rule.observe_labeled(logits, logits.argmax(1))
    assert rule.means[1] == means[1] and rule.variances[1] == variances[1] and rule.means[0] != means[0]
    means = rule.means.clone()
    rule.observe_labeled(logits, torch.full_like(labels, 255))
    assert torch.equal(rule.means, means) and rule.threshold().isfinite()


def test_corrmatch_threshold_is_the_ema_of_the_mean_class_maximum():
    steps, m = make_steps(), 0.9
    rule = get_confidence_rule({"name": "corrmatch", "decay": m})
    feed(rule, steps)
    tau = 0.85
    for _, _, probabilities, valid in steps:
        kept = confidences(probabilities, valid)
        highest = [max(c for c, k in kept if k == label) for label in {k for _, k in kept}]
        tau = m * tau + (1 - m) * sum(highest) / len(highest)
    assert rule.threshold.item() == pytest.approx(tau, abs=1e-12)


@pytest.mark.parametrize(("right", "is_strict"), [(19, True), (18, False)])
def test_cw_bass_is_strict_while_its_confident_held_out_pixels_are_right_enough(right, is_strict):
    steps, m, tau = make_steps(), 0.5, 0.95
    rule = get_confidence_rule({"name": "cw_bass", "decay": m})
    feed(rule, steps)
    mean, class_mean = None, None
    for _, _, probabilities, valid in steps:
        kept = confidences(probabilities, valid)
        now = sum(c for c, _ in kept) / len(kept)
        of_class = [[c for c, k in kept if k == label] for label in range(CLASSES)]
        if mean is None:
            mean, class_mean = now, [now] * CLASSES
        mean = m * mean + (1 - m) * now
        class_mean = [
            m * old + (1 - m) * (sum(new) / len(new) if new else old)
            for old, new in zip(class_mean, of_class, strict=True)
        ]
    floors = [min(max(0.95 * mean * value / max(class_mean), 0.3), tau) for value in class_mean]
    assert rule.thresholds().tolist() == pytest.approx(floors, abs=1e-12)  # closed at first

    # 20 confident held-out pixels in two batches, beside one that is not confident and one without a label
    confident, doubtful = [0.97, 0.01, 0.01, 0.01], [0.1, 0.7, 0.1, 0.1]
    columns = torch.tensor([confident] * 20 + [doubtful, confident], dtype=torch.float64)
    labels = torch.tensor([0] * right + [2] * (20 - right) + [1, 255])
    for _ in range(2):  # measured anew, not added up
        rule.observe_held_out(
            (columns[part].T[None, :, None], labels[part][None, None])
            for part in (slice(0, 9), slice(9, None))
        )
    assert rule.held_out.tolist() == [20, right]
    limits = [tau] * CLASSES if is_strict else floors
    probabilities = steps[-1][2]
    expected = expected_weights(probabilities, lambda p: float(max(p) >= limits[p.index(max(p))]))
    assert torch.equal(rule.weights(probabilities), expected)
    assert 0 < expected.mean() < 1


def confidence_and_variance(p):
    """m, and the second-order term of the cross-entropy to a target that spreads 1 - m evenly."""
    others = sorted(p)[:-1]
    mean = sum(others) / len(others)
    variance = sum((x - mean) ** 2 for x in others) / len(others)
    return max(p), sum(others) * variance / (2 * mean**2)


def test_covar_equals_a_loop_with_an_svd():
    _, _, probabilities, valid = make_steps()[-1]
    rule = get_confidence_rule("covar")
    rule.observe(probabilities, valid, 0.0)
    kept = [
        confidence_and_variance(probabilities[n, :, i, j].tolist())
        for n, i, j in pixels(valid)
        if valid[n, i, j]
    ]
    table = torch.tensor(kept, dtype=torch.float64)
    standard = (table - table.mean(0)) / table.std(0, unbiased=False)
    direction = torch.linalg.svd(standard).Vh[0]
    reliable = table[(standard @ direction) * direction[0].sign() >= 0]
    assert 0 < len(reliable) < len(table)
    (m, v), (var_m, var_v) = reliable.mean(0).tolist(), reliable.var(0, unbiased=False).tolist()

    def weight(p):
        dm, dv = (min(confidence_and_variance(p)[0] - m, 0), max(confidence_and_variance(p)[1] - v, 0))
        return math.exp(-(dm**2 / var_m + dv**2 / var_v) / 2)

    weights = rule.weights(probabilities)
    torch.testing.assert_close(weights, expected_weights(probabilities, weight), rtol=0, atol=1e-9)
    assert (weights == 1).any() and (weights < 0.5).any()


def test_the_residual_variance_is_the_cross_entropys_second_order_term():
    p = [0.7, 0.1002, 0.0999, 0.0999]
    mean = 0.1
    exact = -sum(mean * (math.log(x) - math.log(mean)) for x in p[1:])
    assert confidence_and_variance(p)[1] == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_covar_is_finite_for_certain_uniform_and_two_class_predictions(dtype):
    certain = torch.tensor([1.0, 0, 0], dtype=dtype).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    two = torch.tensor([0.9, 0.1], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    for probabilities in (certain, torch.full_like(certain, 1 / 3), two):
        rule = get_confidence_rule("covar")
        rule.observe(probabilities, torch.ones(1, 2, 2, dtype=torch.bool), 0.0)
        assert torch.equal(rule.weights(probabilities), torch.ones(1, 2, 2, dtype=dtype))


def test_distribution_alignment_multiplies_by_the_ratio_of_class_shares():
    steps, m = make_steps(), 0.9
    alignment = DistributionAlignment(decay=m)
    labeled, unlabeled = [1 / CLASSES] * CLASSES, [1 / CLASSES] * CLASSES
    for logits, labels, probabilities, valid in steps:
        alignment.observe_labeled(logits, labels)
        alignment.observe(probabilities, valid)
        for share, values, mask in (
            (labeled, logits.softmax(1), labels != 255),
            (unlabeled, probabilities, valid),
        ):
            for c in range(CLASSES):
                share[c] = m * share[c] + (1 - m) * values[:, c][mask].mean().item()
    alignment.observe_labeled(logits, torch.full_like(labels, 255))  # says nothing
    ratio = torch.tensor([(s + 1e-6) / (u + 1e-6) for s, u in zip(labeled, unlabeled, strict=True)]).double()
    expected = probabilities * ratio.view(1, -1, 1, 1)
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(alignment.align(probabilities), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(alignment.align(probabilities).sum(1), torch.ones(2, 5, 6).double())


@pytest.mark.parametrize("name", RULES)
def test_state_survives_a_checkpoint_bit_for_bit(name, tmp_path):
    steps = make_steps()
    rule = get_confidence_rule(name)
    feed(rule, steps[:3])
    save_file(rule.state_dict(), tmp_path / "rule.safetensors")
    resumed = get_confidence_rule(name)
    resumed.load_state_dict(load_file(tmp_path / "rule.safetensors"))
    assert torch.equal(feed(rule, steps[3:], 3), feed(resumed, steps[3:], 3))
    for key, value in rule.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value)


@pytest.mark.parametrize("name", RULES)
def test_padding_moves_no_rule(name):
    steps = make_steps()
    other = [
        (logits, labels, torch.where(valid[:, None], p, p.flip(1)), valid)
        for logits, labels, p, valid in steps
    ]
    rule, twin = get_confidence_rule(name), get_confidence_rule(name)
    feed(rule, steps)
    feed(twin, other)
    for key, value in rule.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[key], value, rtol=0, atol=1e-12)


def _observe_half(rank, name, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    half = slice(rank, rank + 1)
    rule = get_confidence_rule(name)
    feed(rule, [tuple(values[half] for values in step) for step in make_steps()])
    torch.save(rule.state_dict(), results / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["freematch", "softmatch", "daw", "corrmatch", "cw_bass", "covar"])
def test_two_ranks_hold_the_state_of_one_rank_with_both_batches(name, tmp_path):
    context = torch.multiprocessing.get_context("fork")
    arguments = (name, tmp_path / "store", tmp_path)
    ranks = [context.Process(target=_observe_half, args=(rank, *arguments)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    whole = get_confidence_rule(name)
    feed(whole, make_steps())
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for key, value in whole.state_dict().items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (95, "must lie in"),
        ("freemach", "did you mean 'freematch'"),
        ({"name": "softmatch", "decy": 0.9}, "did you mean 'decay'"),
        ({"decay": 0.9}, "unknown threshold rule"),
    ],
)
def test_a_wrong_threshold_is_answered_in_one_sentence(threshold, message):
    with pytest.raises(InputError, match=message):
        get_confidence_rule(threshold)


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_as_long_as_five_memories_of_averages_that_start_at_chance(rule):
    options = {"decay": 0.99} if rule in ("freematch", "softmatch", "daw") else {}
    method = get_method("fixmatch", threshold={"name": rule, **options})
    method.require_length(500)
    if not options:
        method.require_length(1)
        return
    with pytest.raises(InputError, match=r"remember 99 steps, of a run of 400: .* 0.98 or less"):
        method.require_length(400)
    get_method("fixmatch", threshold={"name": rule, "decay": 0.98}).require_length(400)
