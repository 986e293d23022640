"""The sheet of pictures of suggested images: each beside what the model sees in it, and where it doubts."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pos_hf.methods.confidence import entropy
from pos_hf.reporting.pictures import Palette, displayed, overlay

WIDTH = 240
"""Of one picture in pixels."""
TITLE, GAP = 22, 6


class Suggestion(NamedTuple):
    """One image to label."""

    id: str
    worth: float
    image: Image.Image | np.ndarray
    probabilities: Tensor
    """Of the classes, [C, H, W]."""


def contact_sheet(suggestions: Iterable[Suggestion], palette: Palette) -> Image.Image:
    """Draw image, prediction and doubt (bright: of high entropy) of each, two images a row.

    Args:
        suggestions: In their order.
        palette: Colour of each class.
    """
    rows = [_row(rank, suggestion, palette) for rank, suggestion in enumerate(suggestions, 1)]
    pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]
    heights = [max(row.height for row in pair) for pair in pairs]
    sheet = Image.new("RGB", (2 * rows[0].width + GAP, sum(heights)), "white")
    for top, pair in zip(np.cumsum([0, *heights[:-1]]), pairs, strict=True):
        for column, row in enumerate(pair):
            sheet.paste(row, (column * (row.width + GAP), int(top)))
    return sheet


def _row(rank: int, suggestion: Suggestion, palette: Palette) -> Image.Image:
    image = displayed(suggestion.image)
    prediction = suggestion.probabilities.argmax(0).cpu().numpy()
    doubt = entropy(suggestion.probabilities[None])[0]
    doubt = (255 * doubt / np.log(max(len(suggestion.probabilities), 2))).clamp(0, 255)
    pictures = [image, overlay(image, prediction, palette), Image.fromarray(doubt.byte().cpu().numpy())]
    height = max(1, round(WIDTH * image.height / image.width))
    row = Image.new("RGB", (3 * (WIDTH + GAP), height + TITLE + GAP), "white")
    title = f"{rank}. {suggestion.id}  ({suggestion.worth:.3g})"
    ImageDraw.Draw(row).text((2, 3), title, fill="black", font=ImageFont.load_default(13))
    for column, picture in enumerate(pictures):
        row.paste(picture.convert("RGB").resize((WIDTH, height)), (column * (WIDTH + GAP), TITLE))
    return row
