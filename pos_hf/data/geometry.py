"""Resize, crop and flip of one view, of pictures in memory or of parts of large files. No colours."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageOps

from pos_hf.data.rasters import Box
from pos_hf.values import IGNORE_INDEX

Picture = Image.Image | np.ndarray
"""PIL, or uint8 [H, W, C]."""


class Part(NamedTuple):
    """What was decoded of a large picture."""

    picture: Picture
    left: int
    """First column, in pixels of the file, as all else about parts is."""
    top: int
    gaps: np.ndarray | None = None
    """Where it has no data, bool [H, W]; None where it says nothing."""
    shrink: int = 1
    """A pixel of the picture stands for so many of the file, each way."""


@dataclass(frozen=True)
class Large:
    """A picture that is decoded where a view is cut from it.

    Args:
        size: Width and height.
        read: A part, and how many of its pixels one of the view will stand for -> what was decoded, more than
            the part or shrunk where that is cheaper.
    """

    size: tuple[int, int]
    read: Callable[[Box, float], Part]

    def all(self) -> Picture:
        """All of it."""
        return self.read(Box(0, 0, *self.size), 1.0).picture


class Geometry(NamedTuple):
    """One draw of resize, crop and flip, in pixels of the resized image."""

    width: int
    height: int
    left: int
    top: int
    flip: bool


def draw_geometry(
    size: tuple[int, int], crop_size: int, scale_range: tuple[float, float], rng: Generator
) -> Geometry:
    """Draw the weak view of an image of `size` (width, height): long side, crop, flip."""
    width, height = size
    long_side = max(size)
    low, high = (max(int(long_side * scale), 1) for scale in scale_range)
    target = int(rng.integers(low, high + 1))
    # the long side is exact, the short one rounded half up; of both a pixel is left
    if height > width:
        width, height = max(int(width * target / height + 0.5), 1), target
    else:
        width, height = target, max(int(height * target / width + 0.5), 1)
    left = int(rng.integers(max(width - crop_size, 0) + 1))
    top = int(rng.integers(max(height - crop_size, 0) + 1))
    return Geometry(width, height, left, top, bool(rng.random() < 0.5))


def size_of(image: Picture | Large) -> tuple[int, int]:
    """Width and height."""
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size


def crop_pictures(
    image: Picture | Large, geometry: Geometry, crop_size: int
) -> tuple[list[Image.Image], np.ndarray]:
    """Resize, crop and flip the channels of an image, of a large one what the crop keeps.

    Returns:
        One picture or one a channel, and where a large image has no data, bool [crop_size, crop_size].
    """
    no_gaps = np.zeros((crop_size, crop_size), bool)
    if not isinstance(image, Large):
        return [crop_image(picture, geometry, crop_size) for picture in to_pictures(image)], no_gaps
    across, down = image.size[0] / geometry.width, image.size[1] / geometry.height
    left, top, right, bottom = _kept(image.size, geometry, crop_size)
    shrinkage = max(min(across, down), 1.0)
    margin_x, margin_y = math.ceil(max(across, 1)) + 1, math.ceil(max(down, 1)) + 1  # the filter's reach
    box = Box(
        max(math.floor(left) - margin_x, 0),
        max(math.floor(top) - margin_y, 0),
        min(math.ceil(right) + margin_x, image.size[0]),
        min(math.ceil(bottom) + margin_y, image.size[1]),
    )
    part = image.read(box, shrinkage)
    kept = (left - part.left, top - part.top, right - part.left, bottom - part.top)
    kept_shrunk = tuple(bound / part.shrink for bound in kept)
    crops = [
        _resized_and_flipped(picture, kept_shrunk, geometry, crop_size)
        for picture in to_pictures(part.picture)
    ]
    if part.gaps is None:
        return crops, no_gaps
    rows, columns = _nearest_places(image.size, geometry, crop_size)
    shown = part.gaps[rows[:, None] - part.top, columns - part.left]
    return crops, _flipped_array(shown, geometry, crop_size)


def crop_image(image: Image.Image, geometry: Geometry, crop_size: int) -> Image.Image:
    """Resize bilinearly, pad with black on the right and at the bottom, crop to a square, flip.

    Only what the crop keeps is resized, several times faster for large images; its pixels are those of the
    whole image's resize to one or two grey levels of rounding.
    """
    return _resized_and_flipped(image, _kept(image.size, geometry, crop_size), geometry, crop_size)


def _kept(size: tuple[int, int], geometry: Geometry, crop_size: int) -> tuple[float, float, float, float]:
    """What a crop keeps of an image, in its own pixels."""
    width, height = min(crop_size, geometry.width), min(crop_size, geometry.height)
    across, down = size[0] / geometry.width, size[1] / geometry.height
    left, top = geometry.left * across, geometry.top * down
    return left, top, min(left + width * across, size[0]), min(top + height * down, size[1])


def _resized_and_flipped(
    image: Image.Image, kept: tuple[float, ...], geometry: Geometry, crop_size: int
) -> Image.Image:
    width, height = min(crop_size, geometry.width), min(crop_size, geometry.height)
    left, top, right, bottom = kept
    box = (left, top, min(right, image.width), min(bottom, image.height))
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return _pad_and_flip(resized, geometry, crop_size, fill=0)


def crop_mask(mask: Image.Image | Large, geometry: Geometry, crop_size: int) -> Image.Image:
    """The same for a one-channel map of class ids: nearest neighbour, padded with 255.

    The pixels are those of Pillow's resize of the whole mask; of it nothing but the crop is looked at.
    """
    rows, columns = _nearest_places(mask.size, geometry, crop_size)
    box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    part = mask.read(box, 1.0).picture if isinstance(mask, Large) else mask.crop(box)
    ids = np.asarray(part)[rows[:, None] - box.top, columns - box.left]
    return _pad_and_flip(Image.fromarray(ids), geometry, crop_size, fill=IGNORE_INDEX)


def _nearest_places(
    size: tuple[int, int], geometry: Geometry, crop_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a mask that a crop shows."""
    places = []
    for old, new, first in (
        (size[1], geometry.height, geometry.top),
        (size[0], geometry.width, geometry.left),
    ):
        # added up step by step, as Pillow does, for the same ties
        centers = np.cumsum(np.r_[0.5, np.ones(new - 1)] * (old / new))
        places.append(centers[first : first + crop_size].astype(int).clip(max=old - 1))
    return places[0], places[1]


def _pad_and_flip(picture: Image.Image, geometry: Geometry, crop_size: int, fill: int) -> Image.Image:
    missing = (crop_size - picture.width, crop_size - picture.height)
    if any(missing):
        picture = ImageOps.expand(picture, (0, 0, *missing), fill)
    return ImageOps.mirror(picture) if geometry.flip else picture


def _flipped_array(shown: np.ndarray, geometry: Geometry, crop_size: int) -> np.ndarray:
    padded = np.zeros((crop_size, crop_size), bool)
    padded[: shown.shape[0], : shown.shape[1]] = shown
    return padded[:, ::-1] if geometry.flip else padded


def padding_mask(geometry: Geometry, crop_size: int) -> np.ndarray:
    """Where a crop shows padding instead of image, bool [crop_size, crop_size]."""
    mask = np.ones((crop_size, crop_size), bool)
    mask[: geometry.height, : geometry.width] = False  # an image larger than the crop leaves no padding
    return mask[:, ::-1].copy() if geometry.flip else mask


def to_pictures(image: Picture) -> list[Image.Image]:
    """One RGB picture, or one "L" picture a channel of a [H, W, C] array."""
    if isinstance(image, Image.Image):
        return [image]
    return [Image.fromarray(channel) for channel in np.moveaxis(image, -1, 0)]
