import pytest
import torch
from torch import nn

from pos_hf.balancing import GradientPair, pos, uniform

PAPER = pos(min_weight=0)


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def two_losses(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = network(inputs)
    return (outputs - 1).square().mean(), (outputs[:, 0] * 3 + inputs[:, 0]).square().mean()


def step(network: nn.Module, pair: GradientPair, batches: list[torch.Tensor], strategy) -> list[torch.Tensor]:
    """One optimizer step's combined gradient over several micro-batches."""
    for batch in batches:
        for index, objective in enumerate(("supervised", "unsupervised")):
            pair.restore(objective)
            (two_losses(network, batch)[index] / len(batches)).backward()
            pair.capture(objective)
    pair.combine(strategy(pair.gramian()))
    return [parameter.grad for parameter in network.parameters()]


def flat(gradients) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_the_update_is_equation_6_and_13_on_gradients_from_autograd():
    network, batch = small_network(), torch.randn(6, 4, dtype=torch.float64)
    parameters = [*network.parameters()]
    found = flat(step(network, GradientPair(parameters), [batch], PAPER))
    g_s, g_u = (
        flat(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in two_losses(network, batch)
    )
    alpha_u = (((g_s - g_u) @ g_s) / (g_u - g_s).square().sum()).clamp(0, 1)
    shortest = alpha_u * g_u + (1 - alpha_u) * g_s
    torch.testing.assert_close(found, shortest / shortest.norm() * ((g_s + g_u) / 2).norm())


def test_a_small_step_along_the_update_lowers_both_losses():
    for seed in range(5):
        torch.manual_seed(seed)
        network, batch = small_network(), torch.randn(6, 4, dtype=torch.float64)
        before = [loss.item() for loss in two_losses(network, batch)]
        step(network, GradientPair([*network.parameters()]), [batch], PAPER)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 1e-6 * parameter.grad
        after = [loss.item() for loss in two_losses(network, batch)]
        assert after[0] < before[0]
        assert after[1] < before[1]


def test_micro_batches_accumulate_to_the_full_batch():
    network, batch = small_network(), torch.randn(6, 4, dtype=torch.float64)
    pair = GradientPair([*network.parameters()])
    full = [gradient.clone() for gradient in step(network, pair, [batch], PAPER)]
    network.zero_grad()
    parts = step(network, pair, [*batch.split(2)], PAPER)
    torch.testing.assert_close(parts, full)


def test_a_parameter_of_one_objective_gets_its_weighted_gradient_and_an_unused_one_none():
    shared, supervised_only, unsupervised_only, unused = (nn.Parameter(torch.ones(2)) for _ in range(4))
    pair = GradientPair([shared, supervised_only, unsupervised_only, unused])
    for objective, loss in (
        ("supervised", (shared * 2 + supervised_only * 3).sum()),
        ("unsupervised", (shared - unsupervised_only * 4).sum()),
    ):
        pair.restore(objective)
        loss.backward()
        pair.capture(objective)
    weights = torch.tensor([0.25, 0.5]).unbind()
    pair.combine(weights)
    assert shared.grad.tolist() == [1.0, 1.0]
    assert supervised_only.grad.tolist() == [0.75, 0.75]
    assert unsupervised_only.grad.tolist() == [-2.0, -2.0]
    assert unused.grad is None
    assert pair.all_gradients() == []


def test_bfloat16_gradients_meet_the_weight_unrounded():
    parameter = nn.Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    pair, gradient = GradientPair([parameter]), torch.randn(1000, dtype=torch.bfloat16)
    parameter.grad = gradient.clone()
    pair.capture("unsupervised")
    third = torch.tensor(1 / 3, dtype=torch.float64)
    pair.combine((third, third))
    assert torch.equal(parameter.grad, (gradient.float() * third.float()).bfloat16())


def test_uniform_weights_give_the_gradient_of_the_mean_loss():
    network, batch = small_network(), torch.randn(6, 4, dtype=torch.float64)
    found = step(network, GradientPair([*network.parameters()]), [batch], uniform)
    expected = torch.autograd.grad(sum(two_losses(network, batch)) / 2, [*network.parameters()])
    torch.testing.assert_close(found, list(expected))


def test_a_metric_weights_each_parameters_share_and_zero_leaves_it_out():
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    pair = GradientPair([first, second])
    for objective, factor in (("supervised", 1.0), ("unsupervised", 2.0)):
        pair.restore(objective)
        (factor * (first.sum() + second.sum())).backward()
        pair.capture(objective)
    assert [number.item() for number in pair.gramian()] == pytest.approx([5, 20, 10], rel=1e-6)
    assert [number.item() for number in pair.gramian([1.0, 0.0])] == pytest.approx([2, 8, 4], rel=1e-6)
    assert [number.item() for number in pair.gramian([1.0, 10.0])] == pytest.approx([32, 128, 64], rel=1e-6)


@pytest.mark.parametrize("method", ["item", "__bool__", "tolist", "cpu", "numpy", "__float__", "__int__"])
def test_a_step_never_reads_a_tensor_on_the_host(monkeypatch, method):
    network, batch = small_network(), torch.randn(6, 4, dtype=torch.float64)
    pair = GradientPair([*network.parameters()])

    def refuse(*args, **kwargs):
        raise AssertionError(f"Tensor.{method} waits for the device")

    monkeypatch.setattr(torch.Tensor, method, refuse)
    for strategy in (PAPER, pos()):
        step(network, pair, [batch], strategy)
        network.zero_grad()


@pytest.mark.parametrize("overflow", [False, True])
def test_a_loss_scale_cancels_and_an_overflow_skips_the_step(overflow):
    torch.manual_seed(0)
    plain, scaled, batch = small_network(), small_network(), torch.randn(6, 4, dtype=torch.float64)
    scaled.load_state_dict(plain.state_dict())
    before = flat(scaled.parameters()).detach().clone()
    step(plain, GradientPair([*plain.parameters()]), [batch], PAPER)
    torch.optim.SGD(plain.parameters(), lr=0.1).step()

    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    pair = GradientPair([*scaled.parameters()])
    for index, objective in enumerate(("supervised", "unsupervised")):
        pair.restore(objective)
        loss = two_losses(scaled, batch)[index] * (float("inf") if overflow and index == 0 else 1)
        scaler.scale(loss).backward()
        pair.capture(objective)
    pair.combine(PAPER(pair.gramian()))
    scaler.step(optimizer)
    scaler.update()

    after = flat(scaled.parameters()).detach()
    if overflow:
        assert torch.equal(after, before)
        assert scaler.get_scale() == 32768.0
    else:
        torch.testing.assert_close(after, flat(plain.parameters()).detach(), rtol=1e-12, atol=0)
