"""How fresh weights are drawn, and that every parameter takes part in training, also after loading."""

import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForSemanticSegmentation

from tests.models.tiny import CONFIGS, tiny_model


def head_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [
        m for name, m in model.named_modules() if isinstance(m, kinds) and not name.startswith("backbone")
    ]


@pytest.mark.parametrize("name", ["dinov2", "resnet"])
def test_head_convolutions_are_uniform_within_one_over_root_fan_in(name):
    convolutions = head_convolutions(tiny_model(name))
    assert len(convolutions) > 5
    for conv in convolutions:
        bound = 1 / math.sqrt(conv.weight[0].numel())
        spread = 3 / math.sqrt(conv.weight.numel())
        assert conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=spread)
        assert conv.bias is None or 0 < conv.bias.abs().max() <= bound


def test_xception_is_drawn_with_the_variance_of_its_fan_out():
    for module in tiny_model("xception").backbone.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx(
                math.sqrt(2 / fan_out), rel=4 / math.sqrt(module.weight.numel())
            )


def test_the_deep_stem_is_drawn_like_the_rest_of_its_backbone():
    backbone = tiny_model("deep_stem_resnet").backbone
    conv = backbone.embedder.embedder[2].convolution
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (conv.out_channels * 9)), rel=0.2)


def train_step(model: nn.Module) -> None:
    model.train()
    labels = torch.randint(5, (2, 96, 80))
    model(torch.randn(2, 3, 96, 80), labels=labels).loss.backward()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_trained_before_and_after_a_round_trip(name, tmp_path):
    model = tiny_model(name)
    model.save_pretrained(tmp_path)
    for candidate in (model, AutoModelForSemanticSegmentation.from_pretrained(tmp_path)):
        train_step(candidate)
        assert [n for n, p in candidate.named_parameters() if not p.requires_grad or p.grad is None] == []
