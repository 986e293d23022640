"""Every architecture of the package at a width that a test can afford, and the published ones besides."""

from typing import Any

from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel

import pos_hf  # noqa: F401 - registers the models

DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 14,
    "image_size": 70,
    "out_indices": [1, 2, 3, 4],
}
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [16, 16, 24, 32],
    "depths": [1, 1, 2, 2],
    "out_indices": [1, 4],
}
XCEPTION = {
    "model_type": "aligned_xception",
    "stem_sizes": [4, 8],
    "entry_sizes": [8, 12, 16],
    "num_middle_blocks": 2,
    "exit_sizes": [20, 24, 24, 32],
    "out_indices": [1, 2],
}
DPT = {"model_type": "dino_dpt", "neck_hidden_sizes": [4, 8, 12, 16], "fusion_hidden_size": 8}
DEEPLAB = {
    "model_type": "deeplabv3plus",
    "aspp_channels": 16,
    "low_level_channels": 6,
    "decoder_channels": 16,
}
REGISTERS = DINOV2 | {"model_type": "dinov2_with_registers", "num_register_tokens": 3}
DINOV3 = DINOV2 | {
    "model_type": "dinov3_vit",
    "patch_size": 16,
    "num_register_tokens": 2,
    "intermediate_size": 64,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "dinov2": DPT | {"backbone_config": DINOV2},
    "dinov2_published_positions": DPT | {"backbone_config": DINOV2, "position_interpolation": "published"},
    "dinov2_with_registers": DPT | {"backbone_config": REGISTERS},
    "dinov3": DPT | {"backbone_config": DINOV3},
    "resnet": DEEPLAB | {"backbone_config": RESNET},
    "deep_stem_resnet": DEEPLAB | {"backbone_config": RESNET | {"model_type": "deep_stem_resnet"}},
    "xception": DEEPLAB | {"backbone_config": XCEPTION, "output_stride": None},
}


def tiny_model(name: str, **overrides: Any) -> PreTrainedModel:
    """A freshly initialised model of `CONFIGS` with 5 classes."""
    config = AutoConfig.for_model(**CONFIGS[name] | {"num_labels": 5} | overrides)
    return AutoModelForSemanticSegmentation.from_config(config)
