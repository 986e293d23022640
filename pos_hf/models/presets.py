"""The named models, and `build_model` that makes or loads one. Conversion of weights lives in convert.py."""

import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from pos_hf.errors import InputError, first_sentence
from pos_hf.model_folders import check_model_folder, refuse_mistyped_folder
from pos_hf.models import processors

logger = logging.getLogger(__name__)


def _dinov2_dpt(
    hidden_size: int,
    layers: int,
    heads: int,
    out_indices: list[int],
    neck: list[int],
    fusion: int,
    **backbone: Any,
) -> dict[str, Any]:
    backbone |= {"hidden_size": hidden_size, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {
        "model_type": "dino_dpt",
        "backbone_config": {
            "model_type": "dinov2",
            "image_size": 518,
            "out_indices": out_indices,
            **backbone,
        },
        "neck_hidden_sizes": neck,
        "fusion_hidden_size": fusion,
    }


def _dinov3_dpt(hidden_size: int, layers: int, heads: int, neck: list[int], fusion: int) -> dict[str, Any]:
    """DINOv3 (arXiv 2508.10104) with the head of V2 for a backbone of that size.

    Its levels come from the deeper half of the layers, evenly spaced, where DINOv2's are spread over all:
    users who swapped one for the other found the features of DINOv3's early layers the poorer ones.
    """
    preset = _dinov2_dpt(hidden_size, layers, heads, [layers * k // 8 for k in (5, 6, 7, 8)], neck, fusion)
    backbone = preset["backbone_config"] | {
        "model_type": "dinov3_vit",
        "image_size": 224,  # of the pretraining; positions are rotary, any multiple of 16 is as good
        "intermediate_size": 4 * hidden_size,
        "num_register_tokens": 4,
    }
    return preset | {"backbone_config": backbone}


def _deeplabv3plus(backbone_type: str, depths: list[int]) -> dict[str, Any]:
    return {
        "model_type": "deeplabv3plus",
        "backbone_config": {"model_type": backbone_type, "depths": depths, "out_indices": [1, 4]},
    }


# A preset is the content of a config.json. Sizes: the published code of UniMatch V1 (DeepLabV3+), V2 (DPT).
PRESETS: dict[str, dict[str, Any]] = {
    # the two tiny ones are for training from scratch on a CPU
    "dinov2_dpt_tiny": {
        "model_type": "dino_dpt",
        "backbone_config": {
            "model_type": "dinov2",
            "patch_size": 8,
            "image_size": 128,
            "hidden_size": 128,
            "mlp_ratio": 2,
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "out_indices": [1, 2, 3, 4],
        },
        "neck_hidden_sizes": [32, 32, 64, 64],
        "fusion_hidden_size": 32,
    },
    "deeplabv3plus_tiny": {
        "model_type": "deeplabv3plus",
        "backbone_config": {
            "model_type": "resnet",
            "layer_type": "basic",
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 128],
            "depths": [1, 1, 1, 1],
            "out_indices": [1, 4],
        },
        "group_norm_groups": 8,
        "aspp_channels": 64,
        "decoder_channels": 64,
    },
    "dinov2_dpt_small": _dinov2_dpt(384, 12, 6, [3, 6, 9, 12], [48, 96, 192, 384], 64),
    "dinov2_dpt_base": _dinov2_dpt(768, 12, 12, [3, 6, 9, 12], [96, 192, 384, 768], 128),
    "dinov2_dpt_large": _dinov2_dpt(1024, 24, 16, [5, 12, 18, 24], [256, 512, 1024, 1024], 256),
    "dinov2_dpt_giant": _dinov2_dpt(1536, 40, 24, [10, 20, 30, 40], [1536] * 4, 384, use_swiglu_ffn=True),
    "dinov3_dpt_small": _dinov3_dpt(384, 12, 6, [48, 96, 192, 384], 64),
    "dinov3_dpt_base": _dinov3_dpt(768, 12, 12, [96, 192, 384, 768], 128),
    "dinov3_dpt_large": _dinov3_dpt(1024, 24, 16, [256, 512, 1024, 1024], 256),
    # transformers' ResNet, for weights such as microsoft/resnet-50
    "deeplabv3plus_resnet50": _deeplabv3plus("resnet", [3, 4, 6, 3]),
    "deeplabv3plus_resnet101": _deeplabv3plus("resnet", [3, 4, 23, 3]),
    # the published backbones
    "deeplabv3plus_resnet50s": _deeplabv3plus("deep_stem_resnet", [3, 4, 6, 3]),
    "deeplabv3plus_resnet101s": _deeplabv3plus("deep_stem_resnet", [3, 4, 23, 3]),
    "deeplabv3plus_resnet152s": _deeplabv3plus("deep_stem_resnet", [3, 8, 36, 3]),
    "deeplabv3plus_xception65": {
        "model_type": "deeplabv3plus",
        "backbone_config": {"model_type": "aligned_xception", "out_indices": [1, 2]},
        "output_stride": None,  # the backbone brings its own
    },
}


def build_model(
    name_or_path: str,
    id2label: dict[int, str],
    *,
    backbone_weights: str | None = None,
    num_channels: int = 3,
    trust_remote_code: bool = False,
    **overrides: Any,
) -> PreTrainedModel:
    """Make a segmentation model for the given classes.

    Args:
        name_or_path: a key of `PRESETS` (random weights), or a local folder or Hub id that
            AutoModelForSemanticSegmentation loads; a head made for another number of classes is drawn anew.
        id2label: class names by id, 0 to C - 1.
        backbone_weights: local folder or Hub id of a pretrained backbone for a preset, e.g.
            `facebook/dinov2-small`.
        num_channels: channels of the images; a preset is built for them, a folder's model must have them.
        trust_remote_code: run the model code that a folder or Hub repository brings along.
        overrides: further entries of the model's configuration, e.g. `palette=[[0, 0, 0], ...]`.

    Returns:
        The model, in float32 and training mode.

    Raises:
        InputError: the name is neither a preset nor a model, or the backbone weights or the images do not
            fit.
    """
    overrides |= {"id2label": id2label, "label2id": {label: index for index, label in id2label.items()}}
    if name_or_path in PRESETS:
        return _from_preset(name_or_path, backbone_weights, num_channels, overrides).train()
    if backbone_weights is not None:
        raise InputError(
            f"backbone_weights belongs to a preset; {name_or_path!r} already carries its weights"
        )
    return _from_pretrained(name_or_path, num_channels, trust_remote_code, overrides).train()


def _from_preset(
    name: str, backbone_weights: str | None, num_channels: int, overrides: dict[str, Any]
) -> PreTrainedModel:
    preset = PRESETS[name]
    backbone_config = preset["backbone_config"] | {"num_channels": num_channels}
    try:
        config = AutoConfig.for_model(**preset | {"backbone_config": backbone_config} | overrides)
        model = AutoModelForSemanticSegmentation.from_config(config)
    except Exception as error:  # an option can be wrong in any layer
        raise InputError(
            f"{name} cannot be built with these model_options: {first_sentence(error)}"
        ) from error
    if backbone_weights is not None:
        if config.to_dict().get("group_norm_groups"):
            raise InputError(
                f"{name} replaces BatchNorm, which backbone weights come with, by GroupNorm: add "
                '"group_norm_groups": null to model_options'
            )
        _load_backbone_weights(model.backbone, backbone_weights)
    return model


def check_name(name_or_path: str) -> None:
    """Check that a model's name can be one: of a preset, a folder or a Hub repository.

    Raises:
        InputError: it cannot.
    """
    if name_or_path not in PRESETS:
        refuse_mistyped_folder(name_or_path)
    if name_or_path not in PRESETS and "/" not in name_or_path and not Path(name_or_path).is_dir():
        raise InputError(
            f"there is no model {name_or_path!r}: give a folder, a Hub id (user/name) or one of "
            f"{', '.join(PRESETS)}"
        )


def _from_pretrained(
    source: str, num_channels: int, trust_remote_code: bool, overrides: dict[str, Any]
) -> PreTrainedModel:
    check_name(source)
    if Path(source).is_dir():
        check_model_folder(Path(source))
    try:
        config, further = AutoConfig.from_pretrained(
            source, trust_remote_code=trust_remote_code, return_unused_kwargs=True, **overrides
        )
        config.update(further)  # such as the palette, which no architecture knows
        model, report = AutoModelForSemanticSegmentation.from_pretrained(
            source,
            config=config,
            dtype="float32",
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged config.json or weights file fails in any of the libraries below
        if "contains custom code" in str(error):
            raise InputError(
                f"{source!r} brings its own code: read it, then set trust_remote_code to true to run it"
            ) from error
        raise InputError(
            f"{source!r} does not load as a segmentation model: {first_sentence(error)}"
        ) from error
    if fresh := sorted(name for name, *_ in report["mismatched_keys"]):
        logger.warning(
            f"{source!r} was trained for other classes than these {config.num_labels}: its "
            f"{' and '.join(fresh)} are drawn anew, the rest is kept"
        )
    expected = processors.num_channels(model)
    if expected != num_channels:
        raise InputError(
            f"{source!r} takes images of {expected} channels, and these have {num_channels}: train one "
            f"of {', '.join(PRESETS)}"
        )
    return model


def _load_backbone_weights(backbone: PreTrainedModel, source: str) -> None:
    # AutoBackbone.from_pretrained (transformers 5.23) takes a local folder for a Hub id and refuses it
    config = backbone.config
    if Path(source).is_dir():
        check_model_folder(Path(source))
    try:
        backbone_class: Any = MODEL_FOR_BACKBONE_MAPPING[type(config)]
        pretrained, report = backbone_class.from_pretrained(
            source, config=config, dtype="float32", output_loading_info=True
        )
    except Exception as error:  # as above
        raise InputError(f"backbone weights {source!r} cannot be loaded: {first_sentence(error)}") from error
    places = backbone.state_dict()
    missing = sorted(report["missing_keys"] & places.keys())
    if missing:
        raise InputError(
            f"backbone weights {source!r} lack {len(missing)} tensors of the preset: {missing[0]} ..."
        )
    weights = pretrained.state_dict()
    backbone.load_state_dict({name: weights[name] for name in places})
