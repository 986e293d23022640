"""How pseudo-labels change over training: a small picture at every evaluation, which the report lines up."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from pos_hf.evaluation import Prediction
from pos_hf.reporting.pictures import Palette, displayed, mask_picture
from pos_hf.values import IGNORE_INDEX

TILE_WIDTH = 128
"""Pixels."""
GAP, GAP_COLOUR = 4, (150, 150, 150)
DROPPED = (225, 120)
"""Grey levels of the stripes where no pseudo-label is kept."""


def pseudo_label_picture(
    rows: Iterable[Mapping], predictions: Iterable[Prediction], palette: Palette
) -> Image.Image:
    """One row an image: the image, its true labels, the kept pseudo-labels, and the confidence (white is 1).

    Args:
        rows: `{"image": PIL image, "mask": PIL image of class ids}`.
        predictions: Of each; striped where no pseudo-label is kept.
        palette: Colour of each class.
    """
    lines = []
    for row, (_, confidence, kept) in zip(rows, predictions, strict=True):
        is_dropped = kept == IGNORE_INDEX
        height = round(TILE_WIDTH * kept.shape[0] / kept.shape[1])
        image = displayed(row["image"]).resize((TILE_WIDTH, height))
        truth = mask_picture(np.asarray(row["mask"]), palette)
        labels = mask_picture(kept, palette)
        truth, labels = (
            mask.convert("RGB").resize((TILE_WIDTH, height), Image.Resampling.NEAREST)
            for mask in (truth, labels)
        )
        is_dropped = Image.fromarray(is_dropped).resize((TILE_WIDTH, height), Image.Resampling.NEAREST)
        labels.paste(_stripes(height), mask=is_dropped)
        lines.append([image, truth, labels, Image.fromarray(confidence).resize((TILE_WIDTH, height))])
    heights = [line[0].height + GAP for line in lines]
    canvas = Image.new("RGB", (4 * (TILE_WIDTH + GAP), sum(heights)), GAP_COLOUR)
    for i, line in enumerate(lines):
        for j, tile in enumerate(line):
            canvas.paste(tile, (j * (TILE_WIDTH + GAP), sum(heights[:i])))
    return canvas


def _stripes(height: int) -> Image.Image:
    across = np.add.outer(np.arange(height), np.arange(TILE_WIDTH)) // 4 % 2
    return Image.fromarray(np.where(across, *DROPPED).astype(np.uint8)).convert("RGB")
