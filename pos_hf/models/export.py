"""ONNX files of segmentation models, checked against torch. Needs the extra `onnx`."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.errors import InputError, first_sentence
from pos_hf.files import explained
from pos_hf.models.processors import bands, image_range, num_channels, statistics

MAX_DIFFERENCE = 1e-4
# two sizes that differ from the traced one; no side is a multiple of a patch, so that no size is special
TRACED_SIZE = (101, 149)
CHECKED_SIZES = ((1, 161, 113), (3, 128, 224))


class LogitsOnly(nn.Module):
    """The function that the file computes: pixel values to logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


def export_onnx(model: PreTrainedModel, path: Path, image_processor: BaseImageProcessor) -> float:
    """Write a model as ONNX with dynamic batch, height and width, and compare it with torch at two sizes.

    Args:
        model: a segmentation model on the CPU in float32; it is put into evaluation mode.
        path: the file to write, which appears only when it is right; input `pixel_values` [batch, channels,
            height, width], output `logits`, metadata of `metadata`.
        image_processor: what the model needs to read an image.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        InputError: the model cannot be exported, or the file computes something else (more than 1e-4 off).
    """
    function = LogitsOnly(model).eval()
    channels = num_channels(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with explained(path), TemporaryDirectory(dir=path.parent, prefix=f"_{path.name}_") as aside:
        draft = Path(aside) / path.name
        try:
            torch.onnx.export(
                function,
                (torch.randn(2, channels, *TRACED_SIZE),),
                draft,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_shapes={"pixel_values": {0: "batch", 2: "height", 3: "width"}},
            )
            written = onnx.load(draft)
            onnx.helper.set_model_props(written, metadata(model, image_processor))
            onnx.save(written, draft)
            session = onnxruntime.InferenceSession(draft, providers=["CPUExecutionProvider"])
            difference = max(
                _difference(function, session, torch.randn(batch, channels, *size))
                for batch, *size in CHECKED_SIZES
            )
        except Exception as error:  # each layer of the exporter raises its own
            raise InputError(
                f"{type(model).__name__} cannot be exported as ONNX: {first_sentence(error)}"
            ) from error
        if difference > MAX_DIFFERENCE:
            raise InputError(
                f"the ONNX file of {type(model).__name__} is up to {difference:.1e} off the model's logits, "
                "so it is not kept"
            )
        os.replace(draft, path)
    return difference


def metadata(model: PreTrainedModel, image_processor: BaseImageProcessor) -> dict[str, str]:
    """What a runtime must know beside the network, as JSON by key.

    Returns:
        `class_names` in the order of ids; `image_mean` and `image_std` of each channel for values of 0 to 1;
        `image_range`, the values of 16-bit or float images that become 0 and 1, null for 8-bit ones; `bands`
        of the images, counted from 1, null for all of them.
    """
    names = cast(dict[int, str], model.config.id2label)
    mean, std = statistics(image_processor)
    values = {
        "class_names": [names[id] for id in sorted(names)],
        "image_mean": mean if len(mean) > 1 else mean * num_channels(model),
        "image_std": std if len(std) > 1 else std * num_channels(model),
        "image_range": image_range(image_processor),
        "bands": bands(image_processor) or None,
    }
    return {key: json.dumps(value) for key, value in values.items()}


@torch.no_grad()
def _difference(function: nn.Module, session: onnxruntime.InferenceSession, pixel_values: Tensor) -> float:
    (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
    return (function(pixel_values) - torch.from_numpy(logits)).abs().max().item()
