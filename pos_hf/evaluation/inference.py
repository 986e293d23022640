"""From normalised pixels to class probabilities at native size: resize rule, sliding window, scales and flip.
Scores are in `metrics`, the loop over a data set in `evaluator`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from transformers import PreTrainedModel

from pos_hf.data import voc_palette
from pos_hf.errors import InputError, nearest
from pos_hf.methods.base import predict_logits
from pos_hf.values import check_options, json_options

SQUARE_MODELS = {"dpt"}
"""Types of transformers' models that lay their tokens out in a square; other images are padded to one with
the mean colour."""
STRIP_BYTES = 512 * 2**20
"""Largest map of class probabilities that is held at once where an image can be predicted in strips."""


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

    multiple: Annotated[int | None, "[1, 16384]"] = None
    window: Annotated[int | None, "[2, 65536]"] = None
    layout: Literal["shifted", "truncated"] = "shifted"
    scales: Annotated[tuple[float, ...], "(0, 100]"] = (1.0,)
    flip: bool = False


def read_inference(options: dict[str, Any] | str | None) -> Inference:
    """The protocol that `inference_options` of a config describe.

    Args:
        options: arguments of `Inference`, as a mapping or its JSON; None predicts each image whole.

    Raises:
        InputError: an option is unknown or does not fit.
    """
    options = json_options("inference_options", options)
    known = [option.name for option in fields(Inference)]
    for name in options:
        if name not in known:
            near = nearest(str(name), known)
            raise InputError(f"inference_options: unknown option {name!r}, did you mean {near!r}?")
    if isinstance(scales := options.get("scales"), list):
        options = options | {"scales": tuple(scales)}
    check_options("inference_options", Inference, options)
    inference = Inference(**options)
    if not inference.scales:
        raise InputError("inference_options: scales is empty, but must name one scale such as 1.0")
    return inference


@dataclass(frozen=True)
class RowReader:
    """Stands for the pixels of one image whose rows are decoded when they are asked for.

    Args:
        shape: 1, channels, height and width.
        device: Where the rows go.
        read: First row and the one after the last -> uint8 [1, channels, rows, width].
    """

    shape: tuple[int, int, int, int]
    device: torch.device
    read: Callable[[int, int], Tensor]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: tuple[Any, slice, slice]) -> Tensor:
        """Rows, asked for as `[..., first:last, :]`."""
        return self.read(part[1].start, part[1].stop).to(self.device)


Pixels = Tensor | RowReader
"""Images as they were decoded, uint8 [N, channels, H, W]."""
Normalise = Callable[[Tensor], Tensor]
"""Pixels as they were decoded, uint8 [N, channels, H, W] -> what the model takes."""


class Strip(NamedTuple):
    """Class probabilities of some rows of the images."""

    top: int
    """First row."""
    probabilities: Tensor
    """float32 [N, C, rows, width], summing to 1 over the classes."""


def probability_strips(
    model: PreTrainedModel,
    pixels_NCHW: Pixels,
    inference: Inference,
    size: tuple[int, int] | None = None,
    normalise: Normalise = lambda pixels: pixels,
) -> Iterator[Strip]:
    """Probabilities of every class for every pixel, in strips of at most `STRIP_BYTES` where that can be.

    Where it takes more than one strip, the windows that reach into two of them are predicted twice. Whole
    images under several scales or mirrored come in one strip: the model would see them again for each.

    Args:
        model: A segmentation model in eval mode.
        pixels_NCHW: Images on the model's device, [N, channels, H, W].
        inference: The protocol.
        size: (height, width) of the result in pixels; the images' own by default.
        normalise: Applied to each part of the images that the model sees.

    Yields:
        Strips that follow each other from the top to the bottom.
    """
    height, width = size or (pixels_NCHW.shape[-2], pixels_NCHW.shape[-1])
    views = [
        (_Windowed if inference.window else _Whole)(
            model, pixels_NCHW, inference, (height, width), normalise, scale, is_flipped
        )
        for scale in inference.scales
        for is_flipped in ((False, True) if inference.flip else (False,))
    ]
    row_bytes = 4 * len(pixels_NCHW) * len(label_names(model)) * width
    rows = height if inference.window is None and len(views) > 1 else max(1, STRIP_BYTES // row_bytes)
    for top in range(0, height, rows):
        # no name here, and no decorator of this generator, holds a strip that was given away
        yield Strip(top, _average(views, top, min(top + rows, height)))


def class_probabilities(
    model: PreTrainedModel,
    pixels_NCHW: Pixels,
    inference: Inference,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The strips of `probability_strips` in one, float32 [N, C, height, width]. Same arguments."""
    return joined(probability_strips(model, pixels_NCHW, inference, size))


def joined(strips: Iterator[Strip]) -> Tensor:
    """Strips that follow each other in one map; a single one is not copied."""
    maps = [strip.probabilities for strip in strips]
    return torch.cat(maps, -2) if len(maps) > 1 else maps[0]


def label_names(model: PreTrainedModel) -> dict[int, str]:
    """Class id -> name, in the order of ids (JSON's keys come in any, in text order from transformers)."""
    return dict(sorted(cast(dict[int, str], model.config.id2label).items()))


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
    return _resize(model_logits(model, pixel_values_NCHW, multiple), size)


def model_logits(model: PreTrainedModel, pixel_values_NCHW: Tensor, multiple: int) -> Tensor:
    """Logits of the whole image at the size that the model sees it in, float32 [N, C, h, w]."""
    height, width = (max(1, int(side / multiple + 0.5)) * multiple for side in pixel_values_NCHW.shape[-2:])
    image = _resize(pixel_values_NCHW, (height, width))
    if model.config.model_type in SQUARE_MODELS:
        side = max(height, width)
        image = pad(image, (0, side - width, 0, side - height))
    return predict_logits(model, image).float()[..., :height, :width]


@dataclass
class _View(ABC):
    """The images at one scale, mirrored or not."""

    model: PreTrainedModel
    pixels_NCHW: Pixels
    inference: Inference
    size: tuple[int, int]
    normalise: Normalise
    scale: float
    is_flipped: bool

    @property
    def scaled_size(self) -> tuple[int, int]:
        height, width = (max(1, round(side * self.scale)) for side in self.pixels_NCHW.shape[-2:])
        return height, width

    @property
    def multiple(self) -> int:
        return self.inference.multiple or patch_size(self.model)

    def image(self, top: int, bottom: int) -> Tensor:
        """What the model sees of the scaled image between two of its rows."""
        height = self.pixels_NCHW.shape[-2]
        first, last = source_rows(top, bottom, self.scaled_size[0], height)
        rows = self.normalise(self.pixels_NCHW[..., first:last, :])
        rows = resized_rows(rows, first, height, self.scaled_size, top, bottom)
        return rows.flip(-1) if self.is_flipped else rows

    @abstractmethod
    def rows(self, top: int, bottom: int) -> Tensor:
        """Probabilities of rows of the result."""

    def _upright(self, maps_NCHW: Tensor) -> Tensor:
        return maps_NCHW.flip(-1) if self.is_flipped else maps_NCHW


class _Whole(_View):
    """The model sees the whole image at once."""

    @cached_property
    def logits(self) -> Tensor:
        return model_logits(self.model, self.image(0, self.scaled_size[0]), self.multiple)

    def rows(self, top: int, bottom: int) -> Tensor:
        logits = self.logits
        if (top, bottom) == (0, self.size[0]):
            del self.logits  # no other rows are asked for
        logits = resized_rows(logits, 0, logits.shape[-2], self.size, top, bottom)
        return self._upright(logits.softmax(1))


class _Windowed(_View):
    """Mean over the windows that see a pixel; the published sum has the same argmax."""

    def rows(self, top: int, bottom: int) -> Tensor:
        first, last = source_rows(top, bottom, self.size[0], self.scaled_size[0])
        mean = self._mean(first, last)
        return self._upright(resized_rows(mean, first, self.scaled_size[0], self.size, top, bottom))

    def _mean(self, first: int, last: int) -> Tensor:
        """Probabilities of rows of the scaled image."""
        height, width = self.scaled_size
        side, layout = self.inference.window or 0, self.inference.layout
        shape = (len(self.pixels_NCHW), len(label_names(self.model)), last - first, width)
        total = torch.zeros(shape, device=self.pixels_NCHW.device)
        seen = total.new_zeros(last - first, width)
        for top in window_starts(height, side, layout):
            bottom = min(top + side, height)
            if top >= last or bottom <= first:
                continue
            image = self.image(top, bottom)
            shared = slice(max(top, first) - top, min(bottom, last) - top)
            rows = slice(max(top, first) - first, min(bottom, last) - first)
            for left in window_starts(width, side, layout):
                crop = image[..., left : left + side]
                logits = full_size_logits(self.model, crop, self.multiple, (crop.shape[-2], crop.shape[-1]))
                total[..., rows, left : left + side] += logits[..., shared, :].softmax(1)
                seen[rows, left : left + side] += 1
        return total.div_(seen)


@torch.no_grad()
def _average(views: Sequence[_View], top: int, bottom: int) -> Tensor:
    total = views[0].rows(top, bottom)
    for view in views[1:]:
        total += view.rows(top, bottom)
    return total.div_(len(views)) if len(views) > 1 else total


def source_rows(top: int, bottom: int, height: int, source_height: int) -> tuple[int, int]:
    """First row, and the one after the last, that rows of a resized map are made of (see `resized_rows`)."""
    if height == source_height:
        return top, bottom
    step = (source_height - 1) / max(height - 1, 1)
    # a row more on each side: torch computes positions in float32
    return max(int(top * step) - 1, 0), min(int((bottom - 1) * step) + 3, source_height)


def resized_rows(
    maps_NCHW: Tensor, first: int, source_height: int, size: tuple[int, int], top: int, bottom: int
) -> Tensor:
    """Rows of a map resized bilinearly with aligned corners, from the rows that they are made of.

    Args:
        maps_NCHW: Rows of the source from `first` on, at least `source_rows`, float [N, C, h, w].
        first: Where they begin in the source.
        source_height: Rows of the whole source.
        size: (height, width) of the whole result.
        top: First row wanted of the result.
        bottom: Row after the last.

    Returns:
        float [N, C, bottom - top, width].
    """
    height, width = size
    if height == source_height:
        return _resize(maps_NCHW[..., top - first : bottom - first, :], (bottom - top, width))
    if (top, bottom) == (0, height):
        return _resize(maps_NCHW, size)
    step = torch.tensor((source_height - 1) / max(height - 1, 1), device=maps_NCHW.device)
    positions = torch.arange(top, bottom, device=maps_NCHW.device) * step
    above = positions.long().clamp(max=source_height - 1)
    below = (above + 1).clamp(max=source_height - 1)
    weight = (positions - above).to(maps_NCHW.dtype)[:, None]
    rows = torch.lerp(maps_NCHW[..., above - first, :], maps_NCHW[..., below - first, :], weight)
    return _resize(rows, (bottom - top, width))


def _resize(maps_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps_NCHW.shape[-2:]) == tuple(size):
        return maps_NCHW
    return interpolate(maps_NCHW, size, mode="bilinear", align_corners=True)
