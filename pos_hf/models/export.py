"""ONNX files of segmentation models, checked against torch. Needs the extra `onnx`."""

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MAX_DIFFERENCE = 1e-4
# two sizes that differ from the traced one; no side is a multiple of a patch, so that no size is special
TRACED_SIZE = (101, 149)
CHECKED_SIZES = ((1, 3, 161, 113), (3, 3, 128, 224))


class LogitsOnly(nn.Module):
    """The function that the file computes: pixel values to logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


def export_onnx(model: PreTrainedModel, path: Path) -> float:
    """Write a model as ONNX with dynamic batch, height and width, and compare it with torch at two sizes.

    Args:
        model: a segmentation model on the CPU in float32; it is put into evaluation mode.
        path: the file to write; input `pixel_values` [batch, 3, height, width], output `logits`.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        RuntimeError: the file computes something else than the model (more than 1e-4 off).
    """
    function = LogitsOnly(model).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        function,
        (torch.randn(2, 3, *TRACED_SIZE),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes={"pixel_values": {0: "batch", 2: "height", 3: "width"}},
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    difference = max(_difference(function, session, torch.randn(*size)) for size in CHECKED_SIZES)
    if difference > MAX_DIFFERENCE:
        raise RuntimeError(f"{path} is up to {difference:.1e} off the model's logits; do not use it")
    return difference


@torch.no_grad()
def _difference(function: nn.Module, session: onnxruntime.InferenceSession, pixel_values: Tensor) -> float:
    (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
    return (function(pixel_values) - torch.from_numpy(logits)).abs().max().item()
