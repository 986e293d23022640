"""Segmentation networks, presets and weight conversion. Knows nothing of training, data or methods.

Names resolve on first use, so that registering the configurations with transformers does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pos_hf.models.configuration_deeplabv3plus import DeepLabV3PlusConfig
    from pos_hf.models.configuration_dino_dpt import DinoDPTConfig
    from pos_hf.models.modeling_deeplabv3plus import DeepLabV3PlusForSemanticSegmentation
    from pos_hf.models.modeling_dino_dpt import DinoDPTForSemanticSegmentation
    from pos_hf.models.presets import PRESETS, build_model

_MODULES = {
    "DeepLabV3PlusConfig": "configuration_deeplabv3plus",
    "DeepLabV3PlusForSemanticSegmentation": "modeling_deeplabv3plus",
    "DinoDPTConfig": "configuration_dino_dpt",
    "DinoDPTForSemanticSegmentation": "modeling_dino_dpt",
    "PRESETS": "presets",
    "build_model": "presets",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = [
    "PRESETS",
    "DeepLabV3PlusConfig",
    "DeepLabV3PlusForSemanticSegmentation",
    "DinoDPTConfig",
    "DinoDPTForSemanticSegmentation",
    "build_model",
]
