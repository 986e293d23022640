"""From normalised pixels to class probabilities at native size: resize rule, sliding window, scales and flip.
Scores are in `metrics`, the loop over a data set in `evaluator`."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import PreTrainedModel

from pos_hf.data import voc_palette
from pos_hf.errors import InputError
from pos_hf.methods.base import predict_logits


@dataclass(frozen=True)
class Inference:
    """How one image is turned into a prediction. The default is the whole image at native size.

    Args:
        multiple: Each side is resized to the nearest multiple of this many pixels and the logits are resized
            back (UniMatch V2's published evaluation). None takes the model's patch size; 1 never resizes
            (V1).
        window: Side in pixels of a sliding window with stride int(2/3 * window); None shows the model the
            whole image.
        layout: Where the last window of a row or column lies: "shifted" inside the image (V2) or "truncated"
            at its border (V1).
        scales: Probabilities are averaged over the image resized by these factors.
        flip: Average also over the mirrored image.
    """

    multiple: int | None = None
    window: int | None = None
    layout: Literal["shifted", "truncated"] = "shifted"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@torch.no_grad()
def class_probabilities(
    model: PreTrainedModel,
    pixel_values_NCHW: Tensor,
    inference: Inference,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Probabilities of every class for every pixel; the prediction is their argmax.

    Args:
        model: A segmentation model in eval mode.
        pixel_values_NCHW: Normalised images on the model's device, float [N, 3, H, W].
        inference: The protocol.
        size: (height, width) of the result in pixels; the images' own by default.

    Returns:
        float32 [N, C, height, width], summing to 1 over the classes.
    """
    height, width = pixel_values_NCHW.shape[-2:]
    size = size or (height, width)
    multiple = inference.multiple or patch_size(model)
    views = []
    for scale in inference.scales:
        scaled = _resize(pixel_values_NCHW, (round(height * scale), round(width * scale)))
        for flipped in (False, True) if inference.flip else (False,):
            view = scaled.flip(-1) if flipped else scaled
            if inference.window is None:
                probabilities = full_size_logits(model, view, multiple, size).softmax(1)
            else:
                probabilities = _sliding_window(model, view, multiple, inference.window, inference.layout)
                probabilities = _resize(probabilities, size)
            views.append(probabilities.flip(-1) if flipped else probabilities)
    return torch.stack(views).mean(0) if len(views) > 1 else views[0]


def label_names(model: PreTrainedModel) -> dict[int, str]:
    """Class id -> name; transformers has already turned JSON's string keys into integers."""
    return cast(dict[int, str], model.config.id2label)


def palette_of(model: PreTrainedModel) -> list[list[int]]:
    """The colours the model was trained with; Pascal VOC's for a model that carries none.

    Raises:
        InputError: the model's configuration names something else than one colour a class.
    """
    num_classes = len(label_names(model))
    palette = getattr(model.config, "palette", None) or voc_palette(num_classes)
    colors = palette if isinstance(palette, (list, tuple)) else []
    if len(colors) < num_classes or not all(map(_is_color, colors)):
        raise InputError(
            f"the model's config.json has a `palette` that is not {num_classes} colours [red, green, blue] "
            "of 0 to 255, one a class: correct or remove it"
        )
    return list(colors)


def _is_color(color: Any) -> bool:
    return isinstance(color, (list, tuple)) and len(color) == 3 and all(part in range(256) for part in color)


def patch_size(model: PreTrainedModel) -> int:
    """Side in pixels of the model's patches, 1 for a model without patches.

    Raises:
        InputError: the model's configuration names patches of no pixel.
    """
    config = getattr(model.config, "backbone_config", None) or model.config
    size = getattr(config, "patch_size", None)
    if not isinstance(size, int):
        return 1
    if size < 1:
        raise InputError(f"the model's config.json has a `patch_size` of {size} pixels: correct it")
    return size


def window_starts(size: int, window: int, layout: str) -> list[int]:
    """First pixel of each window along one side: UniMatch V2's "shifted" or V1's "truncated" layout.

    Args:
        size: Side of the image in pixels.
        window: Side of the window in pixels; the stride is int(2/3 * window).
        layout: "shifted" moves the last window inside the image, "truncated" cuts it at the border.
    """
    stride = window * 2 // 3
    if layout == "truncated":
        return list(range(0, size, stride))
    last = max(size - window, 0)
    return [*range(0, last, stride), last]


def full_size_logits(
    model: PreTrainedModel, pixel_values_NCHW: Tensor, multiple: int, size: tuple[int, int]
) -> Tensor:
    """Logits of the whole image, with graph where gradients are on.

    Args:
        model: A segmentation model.
        pixel_values_NCHW: Normalised images, float [N, 3, H, W].
        multiple: Each side is first resized to the nearest multiple of this many pixels.
        size: (height, width) of the result in pixels.

    Returns:
        float32 [N, C, height, width].
    """
    height, width = (max(1, int(side / multiple + 0.5)) * multiple for side in pixel_values_NCHW.shape[-2:])
    logits = predict_logits(model, _resize(pixel_values_NCHW, (height, width))).float()
    return _resize(logits, size)


def _sliding_window(
    model: PreTrainedModel, pixel_values_NCHW: Tensor, multiple: int, window: int, layout: str
) -> Tensor:
    """Mean over the windows that see a pixel; the published sum has the same argmax."""
    num_images, _, height, width = pixel_values_NCHW.shape
    shape = (num_images, len(label_names(model)), height, width)
    total = pixel_values_NCHW.new_zeros(shape, dtype=torch.float32)
    seen = total.new_zeros(height, width)
    for top in window_starts(height, window, layout):
        for left in window_starts(width, window, layout):
            place = (..., slice(top, top + window), slice(left, left + window))
            crop = pixel_values_NCHW[place]
            logits = full_size_logits(model, crop, multiple, (crop.shape[-2], crop.shape[-1]))
            total[place] += logits.softmax(1)
            seen[place] += 1
    return total / seen


def _resize(maps_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps_NCHW.shape[-2:]) == tuple(size):
        return maps_NCHW
    return interpolate(maps_NCHW, size, mode="bilinear", align_corners=True)
