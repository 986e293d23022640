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

IGNORED = 255
IGNORED_COLOUR = (255, 255, 255)
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
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORED] = IGNORED_COLOUR
    picture.putpalette(colours.flatten().tolist())
    return picture


def overlay(image: Image.Image, mask: np.ndarray, palette: Palette, opacity: float = 0.55) -> Image.Image:
    """The image under its coloured mask; ignored pixels stay as they are.

    Args:
        image: PIL image of the mask's size.
        mask: Class ids, uint8 [H, W].
        palette: Colour of each class.
        opacity: Share of the colour, 0 to 1.
    """
    image = image.convert("RGB")
    coloured = Image.blend(image, mask_picture(mask, palette).convert("RGB"), opacity)
    return Image.composite(image, coloured, Image.fromarray(mask == IGNORED))


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
    for i in (int(i) for i in np.unique(mask) if i != IGNORED):
        width = 22 + round(font.getlength(one_line(names[i]))) + 14
        if left > 8 and left + width > picture.width:
            left, row = 8, row + 1
        places.append((i, left, picture.height + 4 + row * LEGEND_ROW))
        left += width
    canvas = Image.new("RGB", (picture.width, picture.height + 8 + (row + 1) * LEGEND_ROW), "white")
    canvas.paste(picture.convert("RGB"))
    draw = ImageDraw.Draw(canvas)
    for i, left, top in places:
        draw.rectangle((left, top + 4, left + 13, top + 17), fill=tuple(palette[i]), outline=(120, 120, 120))
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
