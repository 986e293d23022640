"""The embedded dataset: textured, overlapping shapes drawn from a seed, nothing stored. No other source.

A class is a range of hues and a texture, plain or striped; outline, size, angle, light, exposure and noise
vary, and objects lie over one another. A few labels show a small part of that. Hues of different classes are
half a circle apart, so that the strong views' colour jitter changes an object's look and not its class.

The constants below are the difficulty; every one of them may be edited.
"""

import colorsys
from functools import lru_cache

import numpy as np
from datasets import Dataset
from numpy.random import Generator
from PIL import Image

from pos_hf.data.arguments import DataArguments
from pos_hf.data.colours import class_palette
from pos_hf.data.decoding import rows_to_dataset
from pos_hf.data.segmentation_data import SegmentationData

IMAGE_SIZE = 64  # pixels, square
ROLES = ("labeled", "unlabeled", "test")  # in the order of their streams of random numbers
NUM_LABELED, NUM_UNLABELED, NUM_TEST = 12, 240, 100

# name: (texture, central hue in turns)
CLASSES = {
    "warm_plain": ("plain", 0.05),
    "cool_plain": ("plain", 0.55),
    "warm_striped": ("striped", 0.05),
    "cool_striped": ("striped", 0.55),
}
OUTLINES = ("disc", "square", "triangle", "ring", "cross")
HUE_SPREAD = 0.08  # standard deviation around the class's hue
OBJECTS = (2, 5)  # how many an image, inclusive
RADIUS = (0.15, 0.35)  # of the image side
CYCLES = (4, 7)  # of the stripes, over the image side
TEXTURE_CONTRAST = (0.4, 0.8)
BACKGROUND_SATURATION, OBJECT_SATURATION = (0.0, 0.4), (0.3, 0.9)
LIGHT = 0.45  # strongest darkening from one side of the image to the other
EXPOSURE = (0.7, 1.25)
NOISE = (2.0, 10.0)  # standard deviation in grey levels


def load_shapes(args: DataArguments) -> SegmentationData:
    """Generate the dataset from `split_seed` alone; the test images are always the same."""

    def count(asked: int | None, default: int) -> int:
        return default if asked is None else asked

    id2label = dict(enumerate(["background", *CLASSES]))
    return SegmentationData(
        name="shapes",
        labeled=_rows("labeled", args.split_seed, count(args.num_labeled, NUM_LABELED)),
        unlabeled=_rows("unlabeled", args.split_seed, count(args.num_unlabeled, NUM_UNLABELED)),
        selection=None,
        test=_rows("test", 0, count(args.num_test, NUM_TEST)),
        id2label=id2label,
        palette=class_palette(id2label),
    )


@lru_cache(maxsize=8)  # a command loads its data more than once
def _rows(role: str, seed: int, count: int) -> Dataset:
    """Generated rows of one role; those without labels come without masks."""
    stream = ROLES.index(role)
    pairs = [draw_scene(np.random.default_rng([seed, stream, index])) for index in range(count)]
    ids = [f"{role}_{index:05d}" for index in range(count)]
    images = [Image.fromarray(image) for image, _ in pairs]
    masks = None if role == "unlabeled" else [Image.fromarray(mask) for _, mask in pairs]
    return rows_to_dataset(ids, images, masks)


def draw_scene(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image and its mask.

    Returns:
        (image uint8 [IMAGE_SIZE, IMAGE_SIZE, 3], mask uint8 [IMAGE_SIZE, IMAGE_SIZE] of class ids)
    """
    canvas = _paint("background", rng.uniform(), BACKGROUND_SATURATION, rng)
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1] + 1)):
        class_id = int(rng.integers(1, len(CLASSES) + 1))
        texture, hue = list(CLASSES.values())[class_id - 1]
        inside = _outline(rng.choice(OUTLINES), rng)
        canvas[inside] = _paint(texture, rng.normal(hue, HUE_SPREAD), OBJECT_SATURATION, rng)[inside]
        mask[inside] = class_id
    return _photograph(canvas, rng), mask


def _grid(rng: Generator, centre: tuple[float, float] = (0.5, 0.5)) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates around a centre (in image sides), turned by a random angle."""
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] / IMAGE_SIZE
    angle = rng.uniform(0, 2 * np.pi)
    y, x = y - centre[0], x - centre[1]
    return np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x


def _outline(kind: str, rng: Generator) -> np.ndarray:
    """Pixels inside a randomly placed, turned and scaled outline, bool [H, W]."""
    radius = rng.uniform(*RADIUS)
    v, u = _grid(rng, (rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.95)))
    distance = np.hypot(v, u)
    if kind == "disc":
        return distance < radius
    if kind == "ring":
        return (distance < radius) & (distance > 0.5 * radius)
    if kind == "square":
        return np.maximum(abs(v), abs(u)) < 0.85 * radius
    if kind == "cross":
        return (np.maximum(abs(v), abs(u)) < radius) & (np.minimum(abs(v), abs(u)) < 0.32 * radius)
    # an equilateral triangle: three half-planes at 120 degrees
    sides = [np.cos(turn) * v + np.sin(turn) * u for turn in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    return np.maximum.reduce(sides) < 0.6 * radius


def _paint(texture: str, hue: float, saturation: tuple[float, float], rng: Generator) -> np.ndarray:
    """A full canvas of one texture in two shades of one hue, float [H, W, 3] in 0 to 255."""
    v, _ = _grid(rng)
    if texture == "striped":
        pattern = np.sin(2 * np.pi * rng.uniform(*CYCLES) * v) > 0
    elif texture == "background":
        coarse = Image.fromarray(rng.random((6, 6), dtype=np.float32))
        pattern = np.asarray(coarse.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    else:
        pattern = np.zeros_like(v)
    shade = rng.uniform(0.45, 1.0) * (1 - rng.uniform(*TEXTURE_CONTRAST) * pattern)
    return 255 * shade[..., None] * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), 1.0))


def _photograph(canvas: np.ndarray, rng: Generator) -> np.ndarray:
    """Light from one side, exposure and sensor noise; uint8 [H, W, 3]."""
    v, _ = _grid(rng)
    light = rng.uniform(*EXPOSURE) * (1 - rng.uniform(0, LIGHT) * (v + 0.5))
    noise = rng.normal(0, rng.uniform(*NOISE), canvas.shape)
    return np.clip(canvas * light[..., None] + noise, 0, 255).astype(np.uint8)
