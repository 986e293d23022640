"""Segmentation models of transformers itself go through POSTrainer as they are."""

import pytest
import torch
from transformers import (
    AutoModelForSemanticSegmentation,
    BeitConfig,
    DPTConfig,
    MobileNetV2Config,
    PreTrainedConfig,
    ResNetConfig,
    SegformerConfig,
    UperNetConfig,
)

from .tiny import NUM_CLASSES, TinyPairs, tiny_trainer

SIDE = 64
VIT = {
    "image_size": SIDE,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_labels": NUM_CLASSES,
}
RESNET = ResNetConfig(
    embedding_size=8,
    hidden_sizes=[8, 8, 8, 8],
    depths=[1, 1, 1, 1],
    layer_type="basic",
    out_features=["stage1", "stage2", "stage3", "stage4"],
)
CONFIGS: list[PreTrainedConfig] = [
    SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        num_labels=NUM_CLASSES,
    ),
    UperNetConfig(
        backbone_config=RESNET,
        hidden_size=8,
        auxiliary_channels=8,
        auxiliary_in_channels=8,
        num_labels=NUM_CLASSES,
    ),
    DPTConfig(
        **VIT,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    ),
    BeitConfig(**VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8, pool_scales=[1, 2]),
    MobileNetV2Config(depth_multiplier=0.25, num_labels=NUM_CLASSES),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_hub_model_trains_one_step_with_both_objectives(tmp_path, config):
    model = AutoModelForSemanticSegmentation.from_config(config)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = tiny_trainer(
        str(tmp_path),
        model,
        method="fixmatch",
        method_options={"threshold": 0.0},
        strategy_options={"min_weight": 0},
        train_dataset=TinyPairs(num_labeled=2, num_unlabeled=4, size=SIDE),
        per_device_train_batch_size=2,
        max_steps=1,
        optim="sgd",
    )
    trainer.train()
    (log,) = (entry for entry in trainer.state.log_history if "cosine" in entry)
    assert log["supervised_norm"] > 0
    assert log["unsupervised_norm"] > 0
    backbone = {"upernet": "backbone"}.get(config.model_type, config.model_type)
    parameters = dict(model.named_parameters())
    groups = [{id(value) for value in group["params"]} for group in trainer.optimizer.param_groups]
    pretrained = {name for name in parameters if name.startswith(f"{backbone}.")}
    assert {name for name, value in parameters.items() if id(value) in groups[0]} == pretrained
    assert {name for name, value in parameters.items() if id(value) in groups[1]} == set(
        parameters
    ) - pretrained
    changed = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert changed & pretrained and changed - pretrained
