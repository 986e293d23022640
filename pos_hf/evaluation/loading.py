"""A trained model and its image processor from a folder or the Hub. Building a new model to train is in
`pos_hf.models`."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSemanticSegmentation, BaseImageProcessor, PreTrainedModel

from pos_hf.data.decoding import RowDecoder
from pos_hf.errors import InputError, first_sentence
from pos_hf.evaluation.inference import palette_of, patch_size
from pos_hf.model_folders import check_model_folder, refuse_mistyped_folder
from pos_hf.models.layout import lay_out
from pos_hf.models.processors import bands, image_range, load_image_processor, num_channels

MAX_SIDE = 16384
"""Pixels to which an image may be resized; crops have the same bound."""


def load_for_inference(
    name_or_path: str, device: torch.device | str, trust_remote_code: bool = False, subfolder: str = ""
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load a segmentation model in eval mode and the image processor saved beside it.

    Args:
        name_or_path: A folder written by training, or the id of a Hub repository.
        device: Where the model goes.
        trust_remote_code: Run the model code that the folder or repository brings along.
        subfolder: Where in it the model lies, for example `student`.

    Raises:
        InputError: There is no such model, it is damaged, or it brings code that is not trusted.
    """
    _check_folder(name_or_path, subfolder)
    model, image_processor = _load(name_or_path, trust_remote_code, subfolder)
    try:
        patch_size(model)
        palette_of(model)
        _check_resize(image_processor)
        decoder_for(model, image_processor)
    except InputError as error:
        raise InputError(f"'{name_or_path}': {error}") from error
    model.to(device)
    lay_out(model, model.device)
    return model.eval(), image_processor


def _check_folder(name_or_path: str, subfolder: str) -> None:
    refuse_mistyped_folder(name_or_path)
    folder = Path(name_or_path)
    if subfolder and (folder / "config.json").exists() and not (folder / subfolder / "config.json").exists():
        raise InputError(
            f"'{name_or_path}' holds a model but none in its folder '{subfolder}' (a supervised run has one "
            "model alone, no student beside a teacher): leave out --subfolder."
        )
    if folder.is_dir():
        if not (folder / subfolder / "config.json").exists():
            raise InputError(f"'{folder}' holds no config.json: give the folder of a finished training run.")
        check_model_folder(folder, subfolder)


def _load(name_or_path: str, trust_remote_code: bool, subfolder: str) -> tuple[Any, BaseImageProcessor]:
    try:
        model, report = AutoModelForSemanticSegmentation.from_pretrained(
            name_or_path,
            subfolder=subfolder,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        image_processor = load_image_processor(name_or_path, trust_remote_code, subfolder)
    except OSError as error:
        raise InputError(
            f"'{name_or_path}' is neither a local model folder nor a Hub repository that can be reached "
            f"with a model and an image processor in it: {first_sentence(error)}"
        ) from error
    except Exception as error:  # a damaged config.json or weights file fails in any of the libraries below
        if "contains custom code" in str(error):
            raise InputError(
                f"'{name_or_path}' brings its own code: read it, then add --trust_remote_code to run it."
            ) from error
        raise InputError(
            f"'{name_or_path}' does not load as a segmentation model: {first_sentence(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:  # they would be random numbers
        raise InputError(
            f"the weights of '{name_or_path}' lack {len(missing)} tensors, {missing[0]} among them: give a "
            "trained segmentation model."
        )
    return model, image_processor


def decoder_for(model: PreTrainedModel, image_processor: BaseImageProcessor) -> RowDecoder:
    """Decodes images as a model was trained on them.

    Raises:
        InputError: the processor does not say how.
    """
    return RowDecoder(
        image_range=image_range(image_processor),
        bands=bands(image_processor),
        num_channels=num_channels(model),
    )


def _check_resize(image_processor: BaseImageProcessor) -> None:
    settings = image_processor.to_dict()
    sides = dict(settings.get("size") or {}) if settings.get("do_resize") else {}
    for side, pixels in sides.items():
        if pixels is not None and not 1 <= pixels <= MAX_SIDE:
            raise InputError(
                f"preprocessor_config.json resizes images to a {side} of {pixels} pixels, but it must lie in "
                f"[1, {MAX_SIDE}]: correct it"
            )


def weights_fingerprint(model: nn.Module) -> str:
    """Name a model's weights in 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
