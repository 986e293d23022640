"""DINO + DPT: any ViT backbone, any image size, attention, checkpointing, and refused configurations."""

import pytest
import torch
from torch.nn import functional as F

from pos_hf.models.modeling_dino_dpt import interpolate_positions_as_published
from tests.models.tiny import CONFIGS, DINOV2, tiny_model

VITS = [name for name, config in CONFIGS.items() if config["model_type"] == "dino_dpt"]


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_a_size_that_the_patch_does_not_divide_is_resized_in_and_out(name):
    model = tiny_model(name).eval()
    patch = model.config.backbone_config.patch_size
    images = torch.randn(2, 3, 5 * patch + patch // 2, 3 * patch - patch // 2 - 1)
    inner = F.interpolate(images, (6 * patch, 2 * patch), mode="bilinear", align_corners=True)
    expected = F.interpolate(model(inner).logits, images.shape[-2:], mode="bilinear", align_corners=True)
    assert torch.equal(model(images).logits, expected)


@torch.no_grad()
def test_an_image_smaller_than_a_patch_is_one_patch():
    assert tiny_model("dinov2")(torch.randn(1, 3, 4, 5)).logits.shape == (1, 5, 4, 5)


@pytest.mark.parametrize("grid", [(4, 6), (5, 6), (8, 8)])
def test_published_positions_are_those_of_a_bicubic_resampling_by_a_factor(grid):
    embeddings = tiny_model("dinov2").double().backbone.embeddings
    positions = embeddings.position_embeddings
    pretrained = positions[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    factor = [(n + 0.1) / 5 for n in grid]
    expected = F.interpolate(pretrained, scale_factor=factor, mode="bicubic").flatten(2).transpose(1, 2)
    tokens = torch.empty(1, 1 + grid[0] * grid[1], 32)
    ours = interpolate_positions_as_published(embeddings, tokens, 14 * grid[0], 14 * grid[1])
    assert torch.equal(ours[:, 0], positions[:, 0])
    assert (ours[:, 1:] - expected).abs().max() < 1e-12


@torch.no_grad()
def test_the_two_position_rules_agree_on_the_pretrained_grid_only():
    ours, published = tiny_model("dinov2").eval(), tiny_model("dinov2_published_positions").eval()
    published.load_state_dict(ours.state_dict())
    same, other = torch.randn(1, 3, 70, 70), torch.randn(1, 3, 70, 84)
    assert torch.equal(ours(same).logits, published(same).logits)
    assert not torch.allclose(ours(other).logits, published(other).logits)


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_scaled_dot_product_attention_is_used_and_equals_eager(name):
    model = tiny_model(name).eval()
    assert model.backbone.config._attn_implementation == "sdpa"
    images = torch.randn(1, 3, 70, 70)
    logits = model(images).logits
    model.set_attn_implementation("eager")
    assert model.backbone.config._attn_implementation == "eager"
    assert torch.allclose(model(images).logits, logits, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_gradient_checkpointing_changes_no_gradient(name):
    # DINOv3's random rescaling of positions would draw twice
    overrides = (
        {}
        if name == "dinov2"
        else {"backbone_config": CONFIGS[name]["backbone_config"] | {"pos_embed_rescale": None}}
    )
    model = tiny_model(name, **overrides).train()
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(5, (2, 64, 64))
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(images, labels=labels).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert model.backbone.is_gradient_checkpointing
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_hidden_states_of_the_backbone_are_returned_on_request():
    outputs = tiny_model("dinov2")(torch.randn(1, 3, 70, 70), output_hidden_states=True)
    assert len(outputs.hidden_states) == 5


def test_complementary_views_differ_and_clean_ones_do_not():
    model = tiny_model("dinov2").eval()
    views = torch.randn(1, 3, 70, 70).repeat(2, 1, 1, 1)
    clean = model(views).logits
    first, second = model(views, feature_perturbation="complementary_dropout").logits
    assert torch.allclose(clean[0], clean[1], atol=1e-6)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backbone_config": DINOV2 | {"out_indices": [2, 4]}}, "neck_hidden_sizes has 4 levels"),
        (
            {"backbone_config": CONFIGS["dinov3"]["backbone_config"], "position_interpolation": "published"},
            "DINOv2's rule",
        ),
        ({"position_interpolation": "nearest"}, "position_interpolation"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, reason):
    with pytest.raises(Exception, match=reason):
        tiny_model("dinov2", **change)
