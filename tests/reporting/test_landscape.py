"""Directions, grid and sharpness against dense algebra on a tiny network."""

import json

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.errors import InputError
from pos_hf.reporting import write_report
from pos_hf.reporting.landscape import (
    RHO,
    Batch,
    filter_normalised_direction,
    loss_and_gradient,
    moved,
    sharpness,
    supervised_loss,
    top_hessian_eigenvalue,
    write_landscape,
)


class TinyConfig(PreTrainedConfig):
    model_type = "tiny_landscape"


class TinyModel(PreTrainedModel):
    """Every kind of parameter a direction must treat: convolutions both ways, bias, token embedding."""

    config_class = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.down = nn.Conv2d(3, 4, 2, stride=2)
        self.tokens = nn.Parameter(torch.randn(1, 5, 4))
        self.up = nn.ConvTranspose2d(4, config.num_labels, 2, stride=2)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> SemanticSegmenterOutput:
        hidden = torch.tanh(self.down(pixel_values) + self.tokens.mean(1)[..., None, None])
        return SemanticSegmenterOutput(logits=self.up(hidden))


@pytest.fixture
def model() -> TinyModel:
    model = TinyModel(TinyConfig(num_labels=3)).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    return model


@pytest.fixture
def batches() -> list[Batch]:
    labels = torch.randint(0, 3, (2, 8, 8))
    labels[:, 0] = 255
    return [Batch(torch.randn(2, 3, 8, 8), labels), Batch(torch.randn(1, 3, 6, 4), labels[:1, :6, :4])]


def flat(parts) -> torch.Tensor:
    return torch.cat([part.detach().flatten() for part in parts])


def test_each_filter_of_a_direction_has_the_norm_of_the_models_filter(model) -> None:
    direction = dict(zip(dict(model.named_parameters()), filter_normalised_direction(model, 0), strict=True))
    for name, dims in (("down.weight", (1, 2, 3)), ("up.weight", (0, 2, 3)), ("tokens", (0, 2))):
        own = model.get_parameter(name)
        ours, norms = (torch.linalg.vector_norm(t, dim=dims) for t in (direction[name], own))
        torch.testing.assert_close(ours, norms)
        assert not torch.allclose(direction[name], own)
    assert not direction["down.bias"].any() and not direction["up.bias"].any()


def test_one_seed_draws_one_direction(model) -> None:
    first, again, other = (flat(filter_normalised_direction(model, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_weights_come_back_bit_for_bit(model) -> None:
    before = flat(model.parameters())
    with moved(model, [(0.3, filter_normalised_direction(model, 0))]):
        assert not torch.equal(flat(model.parameters()), before)
    assert torch.equal(flat(model.parameters()), before)


def test_the_loss_is_the_mean_over_labeled_pixels(model, batches) -> None:
    total = pixels = 0.0
    for batch in batches:
        probabilities = model(batch.pixel_values).logits.softmax(1)
        for n, y, x in (batch.labels != 255).nonzero().tolist():
            total -= probabilities[n, batch.labels[n, y, x], y, x].log()
            pixels += 1
    torch.testing.assert_close(supervised_loss(model, batches), total / pixels)


def test_the_top_eigenvalue_is_the_dense_hessians(model, batches) -> None:
    weights = dict(model.named_parameters())

    def loss_of(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([weight.numel() for weight in weights.values()])
        state = {
            name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)
        }
        total = pixels = 0.0
        for batch in batches:
            logits = torch.func.functional_call(model, state, (batch.pixel_values,)).logits
            total += nn.functional.cross_entropy(logits, batch.labels, ignore_index=255, reduction="sum")
            pixels += (batch.labels != 255).sum()
        return total / pixels

    hessian = torch.autograd.functional.hessian(loss_of, flat(weights.values()))
    eigenvalues = torch.linalg.eigvalsh(hessian)
    largest = eigenvalues[eigenvalues.abs().argmax()].item()
    assert top_hessian_eigenvalue(model, batches, steps=200) == pytest.approx(largest, rel=1e-3)


def test_epsilon_sharpness_is_the_rise_after_one_step_along_the_gradient(model, batches) -> None:
    _, gradient = loss_and_gradient(model, batches)
    expected = RHO * flat(gradient).norm().item()  # to first order
    rise = sharpness(model, batches)["epsilon_sharpness"]
    assert rise > 0 and rise == pytest.approx(expected, rel=0.3)


def test_an_interrupted_measurement_resumes_to_the_same_file(model, batches, tmp_path) -> None:
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    write_landscape(model, batches, batches, whole, points=5)
    lines = whole.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 5 + 1
    for cut in ("".join(lines[:3]) + lines[3][:10], "".join(lines[:6]), "".join(lines)):
        resumed.write_text(cut)
        write_landscape(model, batches, batches, resumed, points=5)
        assert resumed.read_text() == whole.read_text()
    centre = json.loads(lines[3])
    assert centre["position"] == [0.0]
    assert centre["loss"] == pytest.approx(supervised_loss(model, batches).item())


@pytest.mark.parametrize("seed", range(3))
def test_a_trained_model_lies_at_the_lowest_point(model, batches, tmp_path, seed) -> None:
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = supervised_loss(model, batches)
        loss.backward()
        return loss

    optimizer.step(closure)
    write_landscape(model, batches, batches, tmp_path / "landscape.jsonl", seed=seed)
    points = [json.loads(line) for line in (tmp_path / "landscape.jsonl").read_text().splitlines()[1:-1]]
    assert min(points, key=lambda point: point["loss"])["position"] == [0.0]


def test_other_settings_or_a_grid_without_the_trained_weights_are_refused(model, batches, tmp_path) -> None:
    with pytest.raises(InputError, match="odd"):
        write_landscape(model, batches, batches, tmp_path / "a.jsonl", points=4)
    write_landscape(model, batches, batches, tmp_path / "a.jsonl", points=3)
    with pytest.raises(InputError, match="delete it"):
        write_landscape(model, batches, batches, tmp_path / "a.jsonl", points=5)
    model.down.bias.data += 1
    with pytest.raises(InputError, match="or weights"):
        write_landscape(model, batches, batches, tmp_path / "a.jsonl", points=3)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_report_draws_the_landscape(model, batches, make_run, tmp_path, dimensions) -> None:
    run = make_run("run", unlabeled=False)
    write_landscape(model, batches, batches, run / "landscape.jsonl", points=5, dimensions=dimensions)
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    where = "along a line" if dimensions == 1 else "on a plane"
    assert f"Training loss {where}" in page and f"<h3>mIoU {where}" in page
    assert "Fig. 5" in page and "top Hessian" in page
