"""Pictures of masks: palette images, overlays, legends, and the examples folder of a run. No model runs
here."""

import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pos_hf.files import INCOMPLETE, written_aside
from pos_hf.text import one_line
from pos_hf.values import IGNORE_INDEX

IGNORED_COLOUR = (255, 255, 255)
TINT, MIDDLE, CONTRAST = 0.6, 128, 32 / 128
"""Share of the colour in a tint, and what the grey image below it is drawn together to."""
BORDER_PARTS = 200
"""A border is one pixel wide for so many of the picture's shorter side."""
LEGEND_ROW = 22
LEGEND_WIDTH = 240
"""Pixels."""
LONGEST_NAME = 200
"""Bytes; file systems take 255."""

Palette = Sequence[Sequence[int]]
"""One RGB colour (0-255) a class, in the order of the ids."""


def displayed(image: Image.Image | np.ndarray) -> Image.Image:
    """What is shown of an image: its RGB picture, or the first channels of an array [H, W, channels]."""
    if isinstance(image, np.ndarray):
        shown = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
        image = Image.fromarray(np.ascontiguousarray(shown))
    return image.convert("RGB")


def mask_picture(mask: np.ndarray, palette: Palette) -> Image.Image:
    """A palette image whose pixels are the class ids themselves.

    Args:
        mask: Class ids, uint8 [H, W]; 255 is drawn white.
        palette: Colour of each class.
    """
    picture = Image.fromarray(mask.astype(np.uint8)).convert("L")
    picture.putpalette(palette_of_ids(palette).flatten().tolist())
    return picture


def palette_of_ids(palette: Palette) -> np.ndarray:
    """The colour of each of the 256 ids in a mask picture, uint8 [256, 3]."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORE_INDEX] = IGNORED_COLOUR
    return colours


def overlay(image: Image.Image, mask: np.ndarray, palette: Palette) -> Image.Image:
    """The image with every class tinted and outlined in its colour; what is black or ignored stays as it is.

    Under a tint the image is grey and pale, so that what tells two classes apart is their colour alone: dark
    or coloured things would otherwise move a class's pixels to another's colour.

    Args:
        image: PIL image of the mask's size.
        mask: Class ids, uint8 [H, W].
        palette: Colour of each class; a black one, background's, is not drawn.
    """
    pixels = np.asarray(image.convert("RGB")).astype(float)
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    grey = MIDDLE + (np.asarray(image.convert("L")).astype(float)[..., None] - MIDDLE) * CONTRAST
    drawn = np.logical_and(mask != IGNORE_INDEX, np.any(colours, axis=1).take(mask))
    pixels[drawn] = (TINT * colours[mask] + (1 - TINT) * grey)[drawn]
    border = drawn & _borders(mask, max(round(min(mask.shape) / BORDER_PARTS), 1))
    pixels[border] = colours[mask][border]
    return Image.fromarray(pixels.round().astype(np.uint8))


def tint(colour: Sequence[int]) -> tuple[int, int, int]:
    """What a class of this colour looks like in an overlay of a grey image, for its legend."""
    red, green, blue = (round(TINT * part + (1 - TINT) * MIDDLE) if any(colour) else 255 for part in colour)
    return red, green, blue


def _borders(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels at most so far from another id, bool [H, W]."""
    (height, length), padded = mask.shape, np.pad(mask, width, mode="edge")
    steps = [step for step in range(-width, width + 1) if step]
    shifts = [(step, 0) for step in steps] + [(0, step) for step in steps]
    return np.logical_or.reduce(
        [
            padded[width + down : width + down + height, width + right : width + right + length] != mask
            for down, right in shifts
        ]
    )


def picture_colours(mask: Image.Image) -> Palette:
    """The palette of a mask picture, 256 RGB colours, black where it has fewer."""
    colours = np.zeros(768, dtype=np.uint8)
    stored = mask.getpalette() or []
    colours[: len(stored)] = stored
    return colours.reshape(-1, 3).tolist()


def with_legend(
    picture: Image.Image, mask: np.ndarray, names: Sequence[str], palette: Palette
) -> Image.Image:
    """The picture with a strip below that names the classes of the mask.

    Args:
        picture: PIL image; a small one is enlarged until the legend has room.
        mask: Class ids, uint8 [H, W], whose classes are listed.
        names: Name of each class.
        palette: Colour of each class.
    """
    enlarge = -(-LEGEND_WIDTH // picture.width)
    picture = picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST)
    font = ImageFont.load_default(13)
    places, left, row = [], 8, 0
    for i in (int(i) for i in np.unique(mask) if i != IGNORE_INDEX):
        width = 22 + round(font.getlength(one_line(names[i]))) + 14
        if left > 8 and left + width > picture.width:
            left, row = 8, row + 1
        places.append((i, left, picture.height + 4 + row * LEGEND_ROW))
        left += width
    canvas = Image.new("RGB", (picture.width, picture.height + 8 + (row + 1) * LEGEND_ROW), "white")
    canvas.paste(picture.convert("RGB"))
    draw = ImageDraw.Draw(canvas)
    for i, left, top in places:
        draw.rectangle(
            (left, top + 4, left + 13, top + 17), fill=tint(palette[i]), outline=tuple(palette[i]), width=2
        )
        draw.text((left + 20, top + 3), one_line(names[i]), fill=(30, 30, 30), font=font)
    return canvas


def folder_name(id: object) -> str:
    """What `write_examples` calls the folder of a row: its id, or what of it can be the name of a folder."""
    name = one_line(id).replace("/", "_")
    if "\\" not in name and name.strip(". ") and len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{re.sub(r'[^A-Za-z0-9]', '_', name)[:40]}-{zlib.crc32(name.encode()):08x}"


def write_examples(
    folder: Path,
    rows: Iterable[dict],
    predictions: Iterable[np.ndarray],
    names: Sequence[str],
    palette: Palette,
) -> None:
    """Write what the report shows of a run: image, truth, prediction and overlay of each row.

    Args:
        folder: `examples` or `worst` in the run's folder; each row gets a folder of its own in it.
        rows: `{"id": str, "image": PIL image, "mask": PIL image of class ids}`.
        predictions: Class ids of each row, uint8 [H, W].
        names: Name of each class.
        palette: Colour of each class.

    Raises:
        TrainingStopped: They cannot be written; what was there before is as it was.
    """
    with written_aside(folder.parent, f"{INCOMPLETE}_{folder.name}") as aside:
        for row, prediction in zip(rows, predictions, strict=True):
            place = aside / folder.name / folder_name(row["id"])
            place.mkdir(parents=True, exist_ok=True)
            image = displayed(row["image"])
            image.save(place / "image.jpg", quality=92)
            mask_picture(np.asarray(row["mask"]), palette).save(place / "truth.png")
            mask_picture(prediction, palette).save(place / "prediction.png")
            with_legend(overlay(image, prediction, palette), prediction, names, palette).save(
                place / "overlay.png"
            )
