"""LoRA students: low-rank adapters in the backbone, beside a head that is trained whole. What is not trained
at all is in freezing.py."""

import copy
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pos_hf.errors import InputError, first_sentence
from pos_hf.models.freezing import backbone_name
from pos_hf.values import check_type

NAME = "default"
"""PEFT's own name of a model's first adapter."""
PREFIX = "base_model.model."
"""Of every name in PEFT's files."""


def add_lora(model: PreTrainedModel, options: Mapping[str, Any]) -> None:
    """Put LoRA (Hu et al., ICLR 2022) into the backbone, in place; its own weights are frozen.

    The model stays what it was, a model of transformers: its state dict holds base and adapters. What lies
    outside of the backbone is trained whole.

    Args:
        model: of transformers.
        options: of PEFT's `LoraConfig`, such as `{"r": 8, "lora_alpha": 16}`; `target_modules` are ends of
            names of linear and convolutional layers of the backbone, without them all its linear layers.

    Raises:
        InputError: PEFT is not installed, an option does not fit, or no layer is found.
    """
    if find_spec("peft") is None:
        raise InputError("LoRA needs PEFT: `pip install 'pos_hf[peft]'`")
    from peft import LoraConfig, inject_adapter_in_model

    check_type("peft's target_modules", options.get("target_modules"), list[str] | None)
    name = backbone_name(model)
    targets = _target_names(model, name, options.get("target_modules"))
    try:
        config = LoraConfig(**{**options, "target_modules": targets})
        inject_adapter_in_model(config, model, NAME)
    except Exception as error:  # a value may be wrong in any of PEFT's layers
        raise InputError(f"peft: these options make no LoRA: {first_sentence(error)}") from error
    for parameter_name, parameter in model.named_parameters():
        if not parameter_name.startswith(f"{name}."):
            parameter.requires_grad_(True)


def _target_names(model: PreTrainedModel, backbone: str, ends: list[str] | None) -> list[str]:
    kinds = nn.Linear if ends is None else (nn.Linear, nn.Conv2d)
    found = [
        f"{backbone}.{name}"
        for name, layer in model.get_submodule(backbone).named_modules()
        if isinstance(layer, kinds) and (ends is None or f".{name}".endswith(tuple(f".{e}" for e in ends)))
    ]
    if not found:
        what = "no linear layer" if ends is None else f"no layer named {' or '.join(map(repr, ends))}"
        raise InputError(
            f"peft: the backbone of {type(model).__name__} has {what}: name some of its linear or "
            "convolutional layers as target_modules"
        )
    return found


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_lora` has been there."""
    return hasattr(model, "peft_config")


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The model that computes the same without adapters, W + B A in the place of W; itself if it has none."""
    if not has_adapters(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for name, layer in [*plain.named_modules()]:
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            plain.set_submodule(name, layer.get_base_layer())
    del plain.peft_config
    return plain


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write what was trained in PEFT's own files, which `PeftModel.from_pretrained(base, folder)` reads.

    Args:
        model: with adapters.
        folder: to write to, made if need be.
    """
    name = backbone_name(model)
    whole = [child for child, _ in model.named_children() if child != name]
    config: Any = copy.deepcopy(model.peft_config[NAME])
    bias = {"none": r"$^", "all": "bias", "lora_only": r"\.base_layer\.bias$"}[config.bias]
    weights: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if re.search(rf"\.lora_\w+\.{NAME}(\.|$)", key):
            weights[PREFIX + key.replace(f".{NAME}", "", 1)] = value.contiguous()
        elif key.partition(".")[0] in whole or re.search(bias, key):
            weights[PREFIX + key] = value.contiguous()
    config.modules_to_save, config.inference_mode = whole, True
    config.base_model_name_or_path = None  # it may be a path of this machine
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
