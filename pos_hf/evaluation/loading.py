"""A trained model and its image processor from a folder or the Hub. Building a new model to train is in
`pos_hf.models`."""

from pathlib import Path

import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    PreTrainedModel,
)

from pos_hf.errors import InputError, first_sentence


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
        InputError: There is no such model, or it brings code that is not trusted.
    """
    if Path(name_or_path).is_dir() and not (Path(name_or_path) / subfolder / "config.json").exists():
        raise InputError(
            f"'{name_or_path}' holds no config.json: give the output folder of a finished training run."
        )
    try:
        model, report = AutoModelForSemanticSegmentation.from_pretrained(
            name_or_path,
            subfolder=subfolder,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        image_processor = AutoImageProcessor.from_pretrained(name_or_path, subfolder=subfolder)
    except OSError as error:
        raise InputError(
            f"'{name_or_path}' is neither a local model folder nor a Hub repository that can be reached "
            f"with a model and an image processor in it: {first_sentence(error)}"
        ) from error
    except Exception as error:  # a damaged config.json or weights file fails in any of the libraries below
        if "contains custom code" in str(error):
            raise InputError(
                f"'{name_or_path}' brings its own model code: read it, then add --trust_remote_code to run "
                "it."
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
    return model.to(device).eval(), image_processor
