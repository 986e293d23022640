"""Segmentation networks, presets and weight conversion. Knows nothing of training, data or methods.

Names load on first use: the Auto classes of transformers look them up here, see registration.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_aligned_xception import AlignedXceptionConfig
    from .configuration_deep_stem_resnet import DeepStemResNetConfig
    from .configuration_deeplabv3plus import DeepLabV3PlusConfig
    from .configuration_dino_dpt import DinoDPTConfig
    from .convert import convert_checkpoint
    from .modeling_aligned_xception import AlignedXceptionBackbone
    from .modeling_deep_stem_resnet import DeepStemResNetBackbone
    from .modeling_deeplabv3plus import DeepLabV3PlusForSemanticSegmentation
    from .modeling_dino_dpt import DinoDPTForSemanticSegmentation
    from .presets import PRESETS, build_model
    from .processors import default_image_processor

_MODULES = {
    "AlignedXceptionBackbone": "modeling_aligned_xception",
    "AlignedXceptionConfig": "configuration_aligned_xception",
    "DeepLabV3PlusConfig": "configuration_deeplabv3plus",
    "DeepLabV3PlusForSemanticSegmentation": "modeling_deeplabv3plus",
    "DeepStemResNetBackbone": "modeling_deep_stem_resnet",
    "DeepStemResNetConfig": "configuration_deep_stem_resnet",
    "DinoDPTConfig": "configuration_dino_dpt",
    "DinoDPTForSemanticSegmentation": "modeling_dino_dpt",
    "PRESETS": "presets",
    "build_model": "presets",
    "convert_checkpoint": "convert",
    "default_image_processor": "processors",
}

__all__ = [
    "PRESETS",
    "AlignedXceptionBackbone",
    "AlignedXceptionConfig",
    "DeepLabV3PlusConfig",
    "DeepLabV3PlusForSemanticSegmentation",
    "DeepStemResNetBackbone",
    "DeepStemResNetConfig",
    "DinoDPTConfig",
    "DinoDPTForSemanticSegmentation",
    "build_model",
    "convert_checkpoint",
    "default_image_processor",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
