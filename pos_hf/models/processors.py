"""What a model needs to read an image: value range, channels, mean and standard deviation, in the image
processor that is saved beside it. Decoding of files is in `pos_hf.data`."""

import logging
import math
from typing import Any

import torch
from torch import Tensor
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedModel, SegformerImageProcessorPil
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.utils import CONFIG_NAME, cached_file

from pos_hf.errors import InputError, first_sentence

logger = logging.getLogger(__name__)


def default_image_processor() -> SegformerImageProcessorPil:
    """The processor saved beside our models: native size, ImageNet normalisation (as published)."""
    return SegformerImageProcessorPil(
        do_resize=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )


def load_image_processor(
    source: str, trust_remote_code: bool = False, subfolder: str = ""
) -> BaseImageProcessor:
    """The image processor of a model folder or Hub repository; its own code runs only where it is trusted."""
    # left open, the flag makes transformers ask on the terminal
    return AutoImageProcessor.from_pretrained(
        source, trust_remote_code=trust_remote_code, subfolder=subfolder
    )


def inherited_image_processor(source: str, trust_remote_code: bool = False) -> SegformerImageProcessorPil:
    """The processor for a training that starts from a model: native size, with the statistics of the model's.

    Args:
        source: local folder or Hub id of the model.
        trust_remote_code: run the code that its processor brings along.

    Returns:
        ImageNet's statistics, with a warning, where the model comes without a processor.

    Raises:
        InputError: the processor cannot be had, or does what training on crops cannot repeat.
    """
    processor: Any = default_image_processor()
    try:
        # an empty one is a model that was saved alone, unless nothing of it can be had
        if not get_image_processor_config(source):
            cached_file(source, CONFIG_NAME)
            logger.warning(
                f"{source!r} comes without an image processor: ImageNet's mean and standard deviation are "
                "taken where image_mean and image_std are not set"
            )
            return processor
        own = load_image_processor(source, trust_remote_code).to_dict()
    except Exception as error:  # a damaged file fails in any of the libraries below
        if "contains custom code" in str(error):
            raise InputError(
                f"the image processor of {source!r} brings its own code: read it, then set trust_remote_code "
                "to true to run it"
            ) from error
        raise InputError(
            f"the image processor of {source!r} does not load: {first_sentence(error)}"
        ) from error
    if own.get("do_flip_channel_order"):
        raise InputError(f"{source!r} takes images in the order blue, green, red: train another model")
    processor.image_mean, processor.image_std = statistics(own)
    if (bounds := image_range(own)) is not None:
        processor.image_range = list(bounds)
    if taken := bands(own):
        processor.bands = list(taken)
    return processor


def image_range(image_processor: BaseImageProcessor | dict[str, Any]) -> tuple[float, float] | None:
    """The values of 16-bit or float images that become 0 and 255; None for a model of 8-bit images.

    Args:
        image_processor: of a trained model, or its `to_dict()`.

    Raises:
        InputError: the processor's file holds something else.
    """
    values = image_processor if isinstance(image_processor, dict) else image_processor.to_dict()
    bounds = values.get("image_range")
    if bounds is None:
        return None
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high < math.inf:
        raise InputError(f"image_range of the image processor is {bounds}, not two numbers [LOW, HIGH]")
    return low, high


def bands(image_processor: BaseImageProcessor | dict[str, Any]) -> tuple[int, ...]:
    """The bands of images that a model takes, counted from 1; empty for all of them.

    Args:
        image_processor: of a trained model, or its `to_dict()`.

    Raises:
        InputError: the processor's file holds something else.
    """
    values = image_processor if isinstance(image_processor, dict) else image_processor.to_dict()
    found = values.get("bands") or ()
    if not isinstance(found, (list, tuple)) or not all(isinstance(band, int) and band > 0 for band in found):
        raise InputError(f"bands of the image processor is {found}, not a list of numbers from 1")
    return tuple(found)


def num_channels(model: PreTrainedModel) -> int:
    """Channels of the images that a model takes."""
    config = getattr(model.config, "backbone_config", None) or model.config
    return getattr(config, "num_channels", 3)


def statistics(image_processor: BaseImageProcessor | dict[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel for values of 0 to 1, whatever the processor's own scale.

    Args:
        image_processor: of any model, or its `to_dict()`.

    Returns:
        One number a channel each, or a single one for all of them.
    """
    values = image_processor if isinstance(image_processor, dict) else image_processor.to_dict()
    mean, std = [0.0], [1.0]
    if values.get("do_normalize"):
        mean, std = list(values["image_mean"]), list(values["image_std"])
    factor = 255 * values["rescale_factor"] if values.get("do_rescale") else 255.0
    return [value / factor for value in mean], [value / factor for value in std]


def normalise(pixel_values: Tensor, image_processor: BaseImageProcessor) -> Tensor:
    """What the processor does to the values of pixels, on their device, as training does it.

    Args:
        pixel_values: as decoded, 0 to 255, [..., C, H, W].
        image_processor: its rescaling, mean and standard deviation are applied.

    Returns:
        float32 of the same shape.
    """
    mean, std = (
        torch.tensor(values, device=pixel_values.device)[:, None, None]
        for values in statistics(image_processor)
    )
    return (pixel_values / 255 - mean) / std
