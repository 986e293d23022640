"""DeepLabV3+: output strides by dilation, the backbones it takes, perturbed rows."""

import copy

import pytest
import torch
from transformers import AutoBackbone, AutoConfig, ConvNextConfig

from pos_hf.models.backbones import set_output_stride
from tests.models.tiny import RESNET, XCEPTION, tiny_model

RESNETS = {
    "plain": RESNET,
    "basic": RESNET | {"layer_type": "basic"},
    "deep_stem": RESNET | {"model_type": "deep_stem_resnet"},
    "stride_in_first": RESNET | {"downsample_in_bottleneck": True},
}


@pytest.mark.parametrize("kind", RESNETS)
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_dilation_computes_the_strided_values_on_a_denser_grid(kind, output_stride):
    strided = AutoBackbone.from_config(AutoConfig.for_model(**RESNETS[kind])).double().eval()
    dilated = copy.deepcopy(strided)
    set_output_stride(dilated, output_stride)
    images = torch.randn(1, 3, 161, 97, dtype=torch.float64)
    coarse, dense = strided(images).feature_maps, dilated(images).feature_maps
    step = 32 // output_stride
    assert torch.equal(coarse[0], dense[0])
    assert dense[1].shape[-2:] == ((161 - 1) // output_stride + 1, (97 - 1) // output_stride + 1)
    assert torch.allclose(dense[1][..., ::step, ::step], coarse[1], rtol=1e-12, atol=1e-12)
    assert strided.state_dict().keys() == dilated.state_dict().keys()


def test_the_last_stage_is_dilated_as_published():
    stage = tiny_model("deep_stem_resnet").backbone.encoder.stages[3]
    middle = [layer.layer[1].convolution for layer in stage.layers]
    assert [(conv.stride, conv.dilation, conv.padding) for conv in middle] == [
        ((1, 1), (1, 1), (1, 1)),
        ((1, 1), (2, 2), (2, 2)),
    ]
    assert stage.layers[0].shortcut.convolution.stride == (1, 1)


def test_the_stride_survives_saving(tmp_path):
    model = tiny_model("resnet", output_stride=8)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.backbone(torch.randn(1, 3, 64, 64)).feature_maps[-1].shape[-1] == 8


def test_surgery_leaves_mode_and_statistics_alone():
    backbone = AutoBackbone.from_config(AutoConfig.for_model(**RESNET)).train()
    before = copy.deepcopy(backbone.state_dict())
    set_output_stride(backbone, 16)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_backbone_that_cannot_reach_the_stride_is_refused():
    with pytest.raises(ValueError, match="output stride 32 where 64 was asked for"):
        tiny_model("resnet", output_stride=64)


@pytest.mark.parametrize(("output_stride", "side"), [(8, 12), (16, 6), (32, 3)])
def test_xception_brings_its_own_stride(output_stride, side):
    backbone = AutoBackbone.from_config(AutoConfig.for_model(**XCEPTION, output_stride=output_stride))
    low, high = backbone(torch.randn(1, 3, 96, 96)).feature_maps
    assert (low.shape[-1], high.shape[-1]) == (24, side)


def test_any_backbone_with_a_stride_4_and_a_last_map_will_do():
    convnext = ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], out_indices=[1, 4])
    model = tiny_model("resnet", backbone_config=convnext, output_stride=None)
    assert model(torch.randn(2, 3, 96, 64)).logits.shape == (2, 5, 96, 64)


def test_a_backbone_of_one_map_is_refused():
    with pytest.raises(Exception, match="two feature maps"):
        tiny_model("resnet", backbone_config=RESNET | {"out_indices": [4]})


@pytest.mark.parametrize("name", ["resnet", "dinov2"])
@torch.no_grad()
def test_perturbed_rows_follow_the_clean_ones(name):
    model = tiny_model(name).eval()
    images = torch.randn(3, 3, 70, 56)
    clean = model(images).logits
    logits = model(images, feature_perturbation="channel_dropout", perturb_from=2).logits
    assert logits.shape[0] == 4
    assert torch.allclose(logits[:3], clean, atol=1e-5)
    assert not torch.allclose(logits[3], clean[2], atol=1e-3)


def test_clean_and_perturbed_rows_share_batch_statistics_in_training():
    """As published: one decoder pass over all rows, so the perturbed ones move the clean ones' logits."""
    model = tiny_model("resnet").train()
    images = torch.randn(2, 3, 64, 64)
    clean = model(images).logits
    logits = model(images, feature_perturbation="channel_dropout").logits
    assert not torch.allclose(logits[:2], clean, atol=1e-3)
