"""The published views of one image, in Pillow, drawn from a numpy Generator: geometry, colours, CutMix boxes.

Everything here follows the data pipeline of UniMatch V1 and V2 (Yang et al., published
code).
Pairing of images and batches are in batches.py; the same photometry on the accelerator is in device_views.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pos_hf.data.arguments import DataArguments
from pos_hf.data.segmentation_data import IGNORE_INDEX

JITTER_PROBABILITY, GRAYSCALE_PROBABILITY, BLUR_PROBABILITY, CUTMIX_PROBABILITY = 0.8, 0.2, 0.5, 0.5
JITTER_STRENGTH, HUE_STRENGTH = (
    0.5,
    0.25,
)  # brightness, contrast, saturation in 1 +- 0.5; hue in +- 0.25 turns
BLUR_SIGMA = (0.1, 2.0)  # pixels
CUTMIX_AREA = (0.02, 0.4)  # share of the crop
CUTMIX_ASPECT = (0.3, 1 / 0.3)  # height / width


class Geometry(NamedTuple):
    """One draw of resize, crop and flip, in pixels of the resized image."""

    width: int
    height: int
    left: int
    top: int
    flip: bool


class Photometry(NamedTuple):
    """One draw of colour jitter, grayscale and blur.

    `order` lists the jitter's operations (0 brightness, 1 contrast, 2 saturation, 3 hue) as they are applied.
    Brightness, contrast and saturation are factors (1 changes nothing), hue is in turns, sigma in pixels (0:
    no blur).
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: tuple[int, int, int, int] = (0, 1, 2, 3)
    grayscale: bool = False
    sigma: float = 0.0


def draw_geometry(
    size: tuple[int, int], crop_size: int, scale_range: tuple[float, float], rng: Generator
) -> Geometry:
    """Draw the weak view of an image of `size` (width, height): long side, crop, flip."""
    width, height = size
    long_side = max(size)
    low, high = (int(long_side * scale) for scale in scale_range)
    target = int(rng.integers(low, high + 1))
    # the long side is exact, the short one rounded half up
    if height > width:
        width, height = int(width * target / height + 0.5), target
    else:
        width, height = target, int(height * target / width + 0.5)
    left = int(rng.integers(max(width - crop_size, 0) + 1))
    top = int(rng.integers(max(height - crop_size, 0) + 1))
    return Geometry(width, height, left, top, bool(rng.random() < 0.5))


def apply_geometry(picture: Image.Image, geometry: Geometry, crop_size: int, *, fill: int = 0) -> Image.Image:
    """Resize, pad on the right and at the bottom with `fill`, crop, flip.

    Args:
        picture: An image (resized bilinearly) or a one-channel "L" map of class ids (nearest).
        geometry: What to do.
        crop_size: Side of the square that comes out.
        fill: Value of the padding: 0 in images, 255 in masks.
    """
    resample = Image.Resampling.NEAREST if picture.mode == "L" else Image.Resampling.BILINEAR
    picture = picture.resize((geometry.width, geometry.height), resample)
    pad_right, pad_bottom = max(crop_size - geometry.width, 0), max(crop_size - geometry.height, 0)
    if pad_right or pad_bottom:
        picture = ImageOps.expand(picture, (0, 0, pad_right, pad_bottom), fill)
    left, top = geometry.left, geometry.top
    picture = picture.crop((left, top, left + crop_size, top + crop_size))
    return ImageOps.mirror(picture) if geometry.flip else picture


def draw_photometry(rng: Generator) -> Photometry:
    """Draw the photometric part of one strong view."""
    jitter: dict[str, float | tuple[int, ...]] = {}
    if rng.random() < JITTER_PROBABILITY:
        factors = rng.uniform(1 - JITTER_STRENGTH, 1 + JITTER_STRENGTH, 3).tolist()
        jitter = dict(zip(("brightness", "contrast", "saturation"), factors, strict=True))
        jitter["hue"] = float(rng.uniform(-HUE_STRENGTH, HUE_STRENGTH))
        jitter["order"] = tuple(rng.permutation(4).tolist())
    grayscale = bool(rng.random() < GRAYSCALE_PROBABILITY)
    sigma = float(rng.uniform(*BLUR_SIGMA)) if rng.random() < BLUR_PROBABILITY else 0.0
    return Photometry(**jitter, grayscale=grayscale, sigma=sigma)  # type: ignore[arg-type]


def apply_photometry(image: Image.Image, photometry: Photometry) -> Image.Image:
    """Apply colour jitter, then grayscale, then blur to an RGB image."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for operation in photometry.order:
        if operation == 3:
            image = _shift_hue(image, photometry.hue)
        elif photometry[operation] != 1.0:
            image = enhancers[operation](image).enhance(photometry[operation])  # type: ignore[arg-type]
    if photometry.grayscale:
        image = image.convert("L").convert("RGB")
    return image.filter(ImageFilter.GaussianBlur(photometry.sigma)) if photometry.sigma else image


def _shift_hue(image: Image.Image, turns: float) -> Image.Image:
    shift = int(turns * 255)  # truncated, as published
    if shift == 0:
        return image
    identity = list(range(256))
    rotated = [(hue + shift) % 256 for hue in identity]
    return image.convert("HSV").point(rotated + identity + identity).convert("RGB")


def draw_cutmix_box(crop_size: int, rng: Generator) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) in pixels; all zero, "no box", half of the time."""
    if rng.random() > CUTMIX_PROBABILITY:
        return 0, 0, 0, 0
    area = rng.uniform(*CUTMIX_AREA) * crop_size**2
    while True:  # aspect and corner are drawn anew until the box fits
        aspect = rng.uniform(*CUTMIX_ASPECT)
        width, height = int(math.sqrt(area / aspect)), int(math.sqrt(area * aspect))
        left, top = rng.integers(crop_size, size=2).tolist()
        if left + width <= crop_size and top + height <= crop_size:
            return top, left, height, width


@dataclass(frozen=True)
class Views:
    """Makes the views of a row, as uint8 arrays.

    Args:
        crop_size: Side of the square crop, in pixels.
        num_strong_views: Strong views of each unlabeled image.
        scale_range: Range of the long side after resizing, relative to the original.
    """

    crop_size: int
    num_strong_views: int = 2
    scale_range: tuple[float, float] = (0.5, 2.0)

    @classmethod
    def from_arguments(cls, args: DataArguments) -> "Views":
        low, high = args.scale_range
        return cls(args.crop_size, scale_range=(low, high))

    def labeled(self, image: Image.Image, mask: Image.Image, rng: Generator) -> dict[str, np.ndarray]:
        """Weak view of a labeled row: pixel_values uint8 [3, H, W], labels int64 [H, W] (255 on padding)."""
        geometry = draw_geometry(image.size, self.crop_size, self.scale_range, rng)
        weak = apply_geometry(image, geometry, self.crop_size)
        labels = apply_geometry(mask, geometry, self.crop_size, fill=IGNORE_INDEX)
        return {"pixel_values": to_channels_first(weak), "labels": np.asarray(labels, np.int64)}

    def unlabeled(self, image: Image.Image, rng: Generator) -> dict[str, np.ndarray]:
        """Weak and strong views of an unlabeled row, all of one geometry.

        Returns:
            pixel_values uint8 [3, H, W]; strong_pixel_values uint8 [K, 3, H, W]; cutmix_boxes int64 [K, 4];
            padding_mask bool [H, W], True on padding.
        """
        geometry = draw_geometry(image.size, self.crop_size, self.scale_range, rng)
        weak = apply_geometry(image, geometry, self.crop_size)
        strong = [apply_photometry(weak, draw_photometry(rng)) for _ in range(self.num_strong_views)]
        boxes = [draw_cutmix_box(self.crop_size, rng) for _ in range(self.num_strong_views)]
        shape = (self.num_strong_views, 3, self.crop_size, self.crop_size)
        return {
            "pixel_values": to_channels_first(weak),
            "strong_pixel_values": np.array([to_channels_first(view) for view in strong], np.uint8).reshape(
                shape
            ),
            "cutmix_boxes": np.array(boxes, np.int64).reshape(-1, 4),
            "padding_mask": padding_mask(geometry, self.crop_size),
        }


def padding_mask(geometry: Geometry, crop_size: int) -> np.ndarray:
    """Where a crop shows padding instead of image, bool [crop_size, crop_size]."""
    mask = np.ones((crop_size, crop_size), bool)
    mask[: geometry.height, : geometry.width] = False  # an image larger than the crop leaves no padding
    return mask[:, ::-1].copy() if geometry.flip else mask


def to_channels_first(image: Image.Image) -> np.ndarray:
    """An RGB image as uint8 [3, H, W]."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
