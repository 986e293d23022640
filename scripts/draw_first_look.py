"""Draws the README's picture from the models of `pos-hf demo`: `python scripts/draw_first_look.py demo`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pos_hf.data.colours import class_palette
from pos_hf.reporting.figures import NEUTRAL
from pos_hf.reporting.gallery import stored_example
from pos_hf.reporting.pictures import overlay, tint
from pos_hf.run_folder import read_runs

FILE = Path(__file__).parents[1] / "docs" / "figures" / "first_look.png"
TITLES = ("image", "truth", "labels alone", "with unlabeled images")
NUM_IMAGES = 2  # the first of the examples, which are spread over the test set and not picked by score
SIDE, GAP, TITLE = 192, 8, 26
INK = NEUTRAL


def main(demo: Path, file: Path = FILE) -> None:
    """Draw input, truth and both predictions of some test images, with a legend below."""
    supervised, semi = read_runs([demo / "supervised", demo / "pos_meo"])
    names = list(semi.class_iou)
    palette = class_palette(dict(enumerate(names)))
    columns = len(TITLES)
    size = (columns * (SIDE + GAP) + GAP, TITLE + NUM_IMAGES * (SIDE + GAP) + TITLE)
    canvas = Image.new("RGBA", size)  # no ground: shown on light and dark pages
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for column, title in enumerate(TITLES):
        draw.text((GAP + column * (SIDE + GAP), 5), title, fill=INK, font=font)
    for row, name in enumerate(list(semi.examples)[:NUM_IMAGES]):
        image, truth, alone = stored_example(supervised.examples[name])
        *_, together = stored_example(semi.examples[name])
        image, *masks = (part.resize((SIDE, SIDE), 0) for part in (image, truth, alone, together))
        pictures = [image, *(overlay(image, np.asarray(mask), palette) for mask in masks)]
        for column, picture in enumerate(pictures):
            canvas.paste(picture, (GAP + column * (SIDE + GAP), TITLE + row * (SIDE + GAP)))
    left, top = GAP, size[1] - TITLE + 2
    for name, colour in list(zip(names, palette, strict=True))[1:]:
        draw.rectangle(
            (left, top + 2, left + 14, top + 16), fill=tint(colour), outline=tuple(colour), width=2
        )
        draw.text((left + 21, top), name.replace("_", " "), fill=INK, font=font)
        left += 21 + round(font.getlength(name)) + 18
    canvas.save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
