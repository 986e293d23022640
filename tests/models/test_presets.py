"""The named models: published parameter counts and shapes; what `build_model` makes of a name or a folder."""

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModelForSemanticSegmentation,
    DINOv3ViTModel,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from pos_hf.errors import InputError
from pos_hf.models import PRESETS, build_model
from tests.models.tiny import tiny_model

ID2LABEL = {0: "road", 1: "car", 2: "sky"}


def on_meta(preset: str, classes: int) -> torch.nn.Module:
    with torch.device("meta"):
        config = AutoConfig.for_model(**PRESETS[preset], num_labels=classes)
        return AutoModelForSemanticSegmentation.from_config(config)


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize(
    ("preset", "width", "fusion", "encoder", "head", "total"),
    [
        ("dinov2_dpt_small", 384, 64, 22.06, 2.74, 24.80),
        ("dinov2_dpt_base", 768, 128, 86.58, 10.95, 97.53),
        ("dinov2_dpt_large", 1024, 256, 304.37, 31.21, 335.58),
    ],
)
def test_dpt_models_have_the_published_counts_less_what_no_forward_uses(
    preset, width, fusion, encoder, head, total
):
    model = on_meta(preset, 21)
    mask_token, skip_unit = width / 1e6, 2 * (9 * fusion**2 + fusion) / 1e6
    assert round(millions(model.backbone) + mask_token, 2) == encoder
    assert round(millions(model.head) + skip_unit, 2) == head
    assert round(millions(model) + mask_token + skip_unit, 2) == total


@pytest.mark.parametrize(
    ("preset", "classes", "backbone", "total", "batch_norms"),
    [
        ("deeplabv3plus_resnet50s", 21, 23.632, 40.476, 64),
        ("deeplabv3plus_resnet101s", 21, 42.624, 59.468, 115),
        ("deeplabv3plus_xception65", 81, None, 54.727, 141),
    ],
)
def test_deeplab_models_have_the_published_counts(preset, classes, backbone, total, batch_norms):
    model = on_meta(preset, classes)
    assert round(millions(model), 3) == total
    assert backbone is None or round(millions(model.backbone), 3) == backbone
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) == batch_norms


@pytest.mark.parametrize(
    ("preset", "width", "backbone", "levels"),
    [
        # counts of timm's vit_*_patch16_dinov3, without the mask token and the biases of queries and values
        ("dinov3_dpt_small", 384, 21.59, (7, 9, 10, 12)),
        ("dinov3_dpt_base", 768, 85.64, (7, 9, 10, 12)),
        ("dinov3_dpt_large", 1024, 303.08, (15, 18, 21, 24)),
    ],
)
def test_dinov3_has_the_published_counts_and_deep_levels(preset, width, backbone, levels):
    model = on_meta(preset, 21)
    biases = 2 * levels[-1] * width / 1e6
    assert round(millions(model.backbone) - biases, 2) == backbone
    assert tuple(model.backbone.config.out_indices) == levels
    with torch.device("meta"):
        maps = model.eval().backbone(torch.empty(1, 3, 592, 592)).feature_maps
        logits = model(torch.empty(1, 3, 592, 592)).logits
    assert {features.shape[-1] for features in maps} == {37}  # as DINOv2 has at 518 pixels
    assert logits.shape == (1, 21, 592, 592)


SHRUNK = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 8}


def test_dinov3s_published_weights_fill_its_preset_at_tiny_size(tmp_path):
    preset = PRESETS["dinov3_dpt_small"]
    backbone = preset["backbone_config"] | SHRUNK | {"out_indices": [5, 6, 7, 8]}
    config = AutoConfig.for_model(**backbone)
    source = DINOv3ViTModel(config).eval()  # the class of the published weights
    source.save_pretrained(tmp_path)
    head = {"neck_hidden_sizes": [4, 4, 8, 8], "fusion_hidden_size": 8}
    options = {"backbone_weights": str(tmp_path), "backbone_config": backbone, **head}
    model = build_model("dinov3_dpt_small", ID2LABEL, **options).eval()
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        last = model.backbone(images).feature_maps[-1]
        tokens = source(images).last_hidden_state[:, 1 + 4 :]
        torch.testing.assert_close(last.flatten(2).transpose(1, 2), tokens)
    assert model.backbone.embeddings.mask_token is None
    assert model(images).logits.shape == (1, 3, 48, 64)
    model.train()(images).logits.sum().backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == set()


def test_giant_has_dinov2s_size():
    assert round(millions(on_meta("dinov2_dpt_giant", 21).backbone), 1) == 1136.5


@pytest.mark.parametrize(
    ("preset", "size", "low", "high"),
    [
        ("deeplabv3plus_resnet50s", 321, (256, 81, 81), (2048, 21, 21)),
        ("deeplabv3plus_resnet101", 321, (256, 81, 81), (2048, 21, 21)),
        ("deeplabv3plus_xception65", 513, (256, 129, 129), (2048, 33, 33)),
    ],
)
def test_deeplab_features_have_the_published_shapes(preset, size, low, high):
    model = on_meta(preset, 21).eval()
    with torch.device("meta"):
        maps = model.backbone(torch.empty(1, 3, size, size)).feature_maps
        logits = model(torch.empty(1, 3, size, size)).logits
    assert [tuple(features.shape[1:]) for features in maps] == [low, high]
    assert logits.shape == (1, 21, size, size)


def test_dpt_levels_have_the_published_shapes():
    model = on_meta("dinov2_dpt_small", 21)
    sides = []
    for module in [*model.head.resize_layers, model.head.output]:
        module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    with torch.device("meta"):
        logits = model(torch.empty(1, 3, 518, 518)).logits
    assert sides == [148, 74, 37, 19, 296]
    assert logits.shape == (1, 21, 518, 518)


def test_a_preset_gets_the_classes_and_extra_entries_of_the_configuration():
    model = build_model("dinov2_dpt_tiny", ID2LABEL, palette=[[0, 0, 0], [1, 2, 3], [4, 5, 6]])
    assert model.training
    assert model.config.id2label == ID2LABEL
    assert model.config.label2id["car"] == 1
    assert model.config.palette[1] == [1, 2, 3]
    assert model(torch.randn(1, 3, 40, 48)).logits.shape == (1, 3, 40, 48)


def test_an_entry_of_a_preset_can_be_overridden():
    model = build_model("deeplabv3plus_tiny", ID2LABEL, output_stride=8)
    assert model.backbone(torch.randn(1, 3, 64, 64)).feature_maps[-1].shape[-1] == 8


def test_a_folder_with_other_classes_keeps_its_weights_and_draws_a_new_classifier(tmp_path):
    tiny_model("resnet").save_pretrained(tmp_path)
    before = AutoModelForSemanticSegmentation.from_pretrained(tmp_path).state_dict()
    after = build_model(str(tmp_path), ID2LABEL).state_dict()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - changed)


def test_a_transformers_model_loads_by_its_folder(tmp_path):
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], decoder_hidden_size=8, num_labels=2
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    model = build_model(str(tmp_path), ID2LABEL, palette=[[0, 0, 0], [1, 2, 3], [4, 5, 6]])
    assert model(torch.randn(1, 3, 64, 64)).logits.shape[1] == 3
    assert model.config.id2label == ID2LABEL
    assert model.config.palette[1] == [1, 2, 3]


def test_backbone_weights_fill_the_backbone_of_a_preset(tmp_path):
    source = build_model("dinov2_dpt_tiny", ID2LABEL).backbone
    source.save_pretrained(tmp_path)
    model = build_model("dinov2_dpt_tiny", ID2LABEL, backbone_weights=str(tmp_path))
    assert all(
        torch.equal(a, b) for a, b in zip(source.parameters(), model.backbone.parameters(), strict=True)
    )


def test_backbone_weights_may_come_from_a_classifier(tmp_path):
    options = {"backbone_weights": str(tmp_path), "group_norm_groups": None}
    target = build_model("deeplabv3plus_tiny", ID2LABEL).backbone.config
    source = ResNetForImageClassification(target)
    source.save_pretrained(tmp_path)
    model = build_model("deeplabv3plus_tiny", ID2LABEL, **options)
    filled = model.backbone.state_dict()
    assert all(torch.equal(value, filled[name]) for name, value in source.resnet.state_dict().items())
    with pytest.raises(InputError, match="group_norm_groups"):
        build_model("deeplabv3plus_tiny", ID2LABEL, backbone_weights=str(tmp_path))


def test_backbone_weights_of_another_network_are_refused(tmp_path):
    AutoBackbone.from_config(tiny_model("resnet").config.backbone_config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="lack"):
        build_model("dinov2_dpt_tiny", ID2LABEL, backbone_weights=str(tmp_path))


def test_backbone_weights_for_a_whole_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="belongs to a preset"):
        build_model(str(tmp_path), ID2LABEL, backbone_weights="somewhere")


def test_an_unknown_name_is_refused_with_the_presets():
    with pytest.raises(InputError, match="dinov2_dpt_small"):
        build_model("dinov2_dpt_smal", ID2LABEL)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not load"):
        build_model(str(tmp_path), ID2LABEL)


@pytest.mark.parametrize(
    "preset", ["dinov2_dpt_small", "deeplabv3plus_resnet101s", "deeplabv3plus_xception65"]
)
def test_each_kind_of_model_answers_what_fsdp2_asks_for(preset):
    model = on_meta(preset, 21)
    embeddings = model.get_input_embeddings()
    assert embeddings is None or embeddings in set(model.modules())
