"""The published views of one image, in Pillow, drawn from a numpy Generator: colours and CutMix boxes.

Everything here follows the published code of UniMatch V1 and V2 (Yang et al., CVPR 2023 and TPAMI 2025).
Resize, crop and flip are in geometry.py, pairs and batches in batches.py, and the same photometry on the
accelerator in device_views.py.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter

from pos_hf.data.arguments import DataArguments
from pos_hf.data.geometry import (
    Large,
    Picture,
    crop_mask,
    crop_pictures,
    draw_geometry,
    padding_mask,
    size_of,
)
from pos_hf.values import IGNORE_INDEX

JITTER_PROBABILITY, GRAYSCALE_PROBABILITY, BLUR_PROBABILITY, CUTMIX_PROBABILITY = 0.8, 0.2, 0.5, 0.5
JITTER_STRENGTH = 0.5  # brightness, contrast and saturation are factors in 1 +- 0.5
NOISE_PROBABILITY, NOISE_SIGMA = 0.5, (0.0, 12.0)  # grey levels; of images that are not RGB
HUE_STRENGTH = 0.25  # turns, either way
BLUR_SIGMA = (0.1, 2.0)  # pixels
CUTMIX_AREA = (0.02, 0.4)  # share of the crop
CUTMIX_ASPECT = (0.3, 1 / 0.3)  # height / width

NOISE_SPREAD = math.sqrt(4 * (256**2 - 1) / 12)  # of the sum of four bytes

HUE = 3  # among the jitter's operations: brightness, contrast, saturation, hue


class Photometry(NamedTuple):
    """One draw of colour jitter, grayscale, noise and blur.

    `order` lists the jitter's operations (0 brightness, 1 contrast, 2 saturation, 3 hue) as they are applied.
    Brightness, contrast and saturation are factors (1 changes nothing), hue is in turns, sigma in pixels (0:
    no blur). Noise is in grey levels; its seed names the same noise wherever it is made.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: tuple[int, ...] = (0, 1, 2, 3)
    grayscale: bool = False
    sigma: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0

    def to_row(self) -> list[float]:
        """The twelve numbers device_views.py reads."""
        return [*self[:4], *self.order, self.grayscale, self.sigma, self.noise, self.noise_seed]


def draw_photometry(rng: Generator) -> Photometry:
    """Draw the photometric part of one strong view."""
    draw = Photometry()
    if rng.random() < JITTER_PROBABILITY:
        brightness, contrast, saturation = rng.uniform(1 - JITTER_STRENGTH, 1 + JITTER_STRENGTH, 3).tolist()
        hue = float(rng.uniform(-HUE_STRENGTH, HUE_STRENGTH))
        draw = Photometry(brightness, contrast, saturation, hue, tuple(rng.permutation(4).tolist()))
    grayscale = bool(rng.random() < GRAYSCALE_PROBABILITY)
    sigma = float(rng.uniform(*BLUR_SIGMA)) if rng.random() < BLUR_PROBABILITY else 0.0
    return draw._replace(grayscale=grayscale, sigma=sigma)


def with_noise(draw: Photometry, rng: Generator) -> Photometry:
    """Add noise to a draw for an image that is not RGB, whose hue, saturation and gray do not exist."""
    if rng.random() >= NOISE_PROBABILITY:
        return draw
    seed = int(rng.integers(1 << 24))  # a float32 holds it
    return draw._replace(noise=float(rng.uniform(*NOISE_SIGMA)), noise_seed=seed)


def gentler(draw: Photometry, strong_views: str) -> Photometry:
    """A draw of a gentler set of strong views.

    Args:
        draw: As published.
        strong_views: "default" changes nothing; "no_color" leaves out saturation, hue and grayscale; "gentle"
            leaves them out and halves the changes of brightness and contrast, too.
    """
    if strong_views == "default":
        return draw
    draw = draw._replace(saturation=1.0, hue=0.0, grayscale=False)
    if strong_views == "no_color":
        return draw
    return draw._replace(brightness=(1 + draw.brightness) / 2, contrast=(1 + draw.contrast) / 2)


def apply_photometry(image: Image.Image, photometry: Photometry) -> Image.Image:
    """Apply colour jitter, then grayscale, then blur to an RGB image, or its brightness part to a channel."""
    colored = image.mode == "RGB"
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = (photometry.brightness, photometry.contrast, photometry.saturation)
    for operation in photometry.order:
        if operation == HUE and colored:
            image = _shift_hue(image, photometry.hue)
        elif operation < HUE and factors[operation] != 1.0:
            image = enhancers[operation](image).enhance(factors[operation])
    if photometry.grayscale and colored:
        image = image.convert("L").convert("RGB")
    return image.filter(ImageFilter.GaussianBlur(photometry.sigma)) if photometry.sigma else image


def _shift_hue(image: Image.Image, turns: float) -> Image.Image:
    shift = int(turns * 255)  # truncated, as published
    if shift == 0:
        return image
    identity = list(range(256))
    rotated = [(hue + shift) % 256 for hue in identity]
    return image.convert("HSV").point(rotated + identity + identity).convert("RGB")


def add_noise(bands_CHW: np.ndarray, draw: Photometry) -> np.ndarray:
    """Add a draw's noise, of its own in each pixel and band; uint8 [C, H, W]."""
    levels = noise_levels(np.arange(bands_CHW.size, dtype=np.int64), draw.noise_seed)
    noise = levels.reshape(bands_CHW.shape).astype(np.float32) * np.float32(draw.noise / NOISE_SPREAD)
    return (bands_CHW + np.rint(noise)).clip(0, 255).astype(np.uint8)


def noise_levels(indices: Any, seed: Any) -> Any:
    """Noise by the number of a value, whole, about normal, of mean 0 and standard deviation `NOISE_SPREAD`.

    The four bytes of a hash (Mueller's 32 bits) are added up: the same numbers in numpy and in torch.

    Args:
        indices: int64, an array or a tensor.
        seed: Another one, other noise.
    """
    mixed = (indices + seed * 0x9E3779B1) & 0xFFFFFFFF
    for _ in range(2):
        mixed = (((mixed >> 16) ^ mixed) * 0x45D9F3B) & 0xFFFFFFFF
    mixed = (mixed >> 16) ^ mixed
    return sum((mixed >> shift) & 0xFF for shift in (0, 8, 16, 24)) - 2 * 255


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

    Images are PIL RGB images, or uint8 [H, W, C] arrays of any number of channels; those know brightness,
    contrast, blur and noise, each band for itself, but no saturation, hue or grayscale.

    Args:
        crop_size: Side of the square crop, in pixels.
        num_strong_views: Strong views of each unlabeled image.
        scale_range: Range of the long side after resizing, relative to the original.
        on_device: Leave the strong views to device_views.py, and send it the draws.
        rare_classes: Class ids a labeled crop should show where its image does.
        rare_class_retries: How often such a crop is drawn anew.
        strong_views: The set that `gentler` knows.
    """

    crop_size: int
    num_strong_views: int = 2
    scale_range: tuple[float, float] = (0.5, 2.0)
    on_device: bool = False
    rare_classes: tuple[int, ...] = ()
    rare_class_retries: int = 0
    strong_views: str = "default"

    @classmethod
    def from_arguments(
        cls, args: DataArguments, num_strong_views: int = 2, rare_classes: tuple[int, ...] = ()
    ) -> "Views":
        low, high = args.scale_range
        return cls(
            args.crop_size,
            num_strong_views,
            scale_range=(low, high),
            on_device=bool(args.device_views),
            rare_classes=rare_classes,
            rare_class_retries=args.rare_class_retries,
            strong_views=args.strong_views,
        )

    def labeled(
        self, image: Picture | Large, mask: Image.Image | Large, rng: Generator
    ) -> dict[str, np.ndarray]:
        """Weak view of a labeled row: pixel_values uint8 [C, H, W], labels int64 [H, W] (255 on padding)."""
        rare = np.empty(0)
        if self.rare_class_retries:
            rare = np.intersect1d(
                self.rare_classes, np.asarray(mask.all() if isinstance(mask, Large) else mask)
            )
        for _ in range(1 + self.rare_class_retries):
            geometry = draw_geometry(mask.size, self.crop_size, self.scale_range, rng)
            labels = crop_mask(mask, geometry, self.crop_size)
            if rare.size == 0 or np.isin(rare, np.asarray(labels)).any():
                break
        weak, gaps = crop_pictures(image, geometry, self.crop_size)
        ids = np.array(labels, np.int64)
        ids[gaps] = IGNORE_INDEX
        return {"pixel_values": to_channels_first(weak), "labels": ids}

    def unlabeled(self, image: Picture | Large, rng: Generator) -> dict[str, np.ndarray]:
        """Weak and strong views of an unlabeled row, all of one geometry.

        Returns:
            pixel_values uint8 [C, H, W]; cutmix_boxes int64 [K, 4]; padding_mask bool [H, W], True on
            padding; and strong_pixel_values uint8 [K, C, H, W] or, for device_views.py, photometry float32
            [K, 12].
        """
        geometry = draw_geometry(size_of(image), self.crop_size, self.scale_range, rng)
        weak, _ = crop_pictures(image, geometry, self.crop_size)
        draws = [gentler(draw_photometry(rng), self.strong_views) for _ in range(self.num_strong_views)]
        if weak[0].mode != "RGB":
            draws = [with_noise(draw, rng) for draw in draws]
        boxes = [draw_cutmix_box(self.crop_size, rng) for _ in range(self.num_strong_views)]
        item = {
            "pixel_values": to_channels_first(weak),
            "cutmix_boxes": np.array(boxes, np.int64).reshape(-1, 4),
            "padding_mask": padding_mask(geometry, self.crop_size),
        }
        if self.on_device:
            item["photometry"] = np.array([draw.to_row() for draw in draws], np.float32).reshape(-1, 12)
        else:
            strong = [[apply_photometry(picture, draw) for picture in weak] for draw in draws]
            shape = (len(draws), *item["pixel_values"].shape)
            arrays = [
                add_noise(to_channels_first(view), draw) if draw.noise else to_channels_first(view)
                for view, draw in zip(strong, draws, strict=True)
            ]
            item["strong_pixel_values"] = np.array(arrays, np.uint8).reshape(shape)
        return item


def to_channels_first(pictures: list[Image.Image]) -> np.ndarray:
    """Pictures as one uint8 [C, H, W] array."""
    return np.concatenate([np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1) for picture in pictures])
