"""Predicts GeoTIFFs from file to file, strip by strip; where they lie and have no data is kept."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.data.decoding import RowDecoder
from pos_hf.data.files import Stored
from pos_hf.data.images import has_parts, picture_size
from pos_hf.data.rasters import Box, read_gaps, read_place, read_raster, written_raster
from pos_hf.evaluation.evaluator import confident_strips, memory_advice, prepare
from pos_hf.evaluation.inference import Inference, Pixels, RowReader
from pos_hf.values import IGNORE_INDEX

PREVIEW = 2048
"""Longest side in pixels of what is shown of a GeoTIFF."""
ROWS = 512
"""Of an image, read at once for that."""


def predict_geotiff(
    model: PreTrainedModel,
    source: Path,
    decoder: RowDecoder,
    image_processor: BaseImageProcessor,
    inference: Inference,
    min_confidence: float,
    palette: Sequence[Sequence[int]],
    out: Path,
    confidence: Path | None = None,
) -> None:
    """Write the mask of a GeoTIFF as another one; the image is decoded in parts where its format has any.

    Args:
        model: On its device, in eval mode.
        source: The image.
        decoder: Reads it as the model was trained to.
        image_processor: The model's.
        inference: The protocol.
        min_confidence: Pixels below it are 255 in the mask, as those without data are.
        palette: One RGB colour for each of the 256 ids.
        out: The mask to write: class ids, 255 declared as no data.
        confidence: Also write the probabilities, 0 to 255, here.

    Raises:
        InputError: The image cannot be read, or is none that the model takes.
        TrainingStopped: Memory is exhausted.
    """
    stored: Stored = {"path": str(source), "bytes": None}
    width, height = picture_size(stored)
    place = read_place(source)
    with (
        written_raster(out, (width, height), place, nodata=IGNORE_INDEX) as mask,
        nullcontext() if confidence is None else written_raster(confidence, (width, height), place) as shares,
        memory_advice(model, 1, (height, width), inference),
    ):
        mask.write_colormap(1, {id: tuple(color) for id, color in enumerate(palette)})
        pixels = _pixels(stored, decoder, image_processor, model.device)
        for top, ids, highest in confident_strips(model, pixels, (height, width), image_processor, inference):
            rows = ((top, top + len(ids)), (0, width))
            ids[read_gaps(source, Box(0, top, width, top + len(ids)))] = IGNORE_INDEX
            ids[highest < min_confidence] = IGNORE_INDEX
            mask.write(ids, 1, window=rows)
            if shares is not None:
                shares.write(np.uint8(255 * highest), 1, window=rows)


def preview(source: Path, mask: Path, decoder: RowDecoder) -> tuple[Image.Image | np.ndarray, np.ndarray]:
    """An image and its mask, uint8 [H, W], both thinned out to at most `PREVIEW` pixels a side."""
    stored: Stored = {"path": str(source), "bytes": None}
    width, height = picture_size(stored)
    step = -(-max(width, height) // PREVIEW)
    whole = None if has_parts(stored) else np.asarray(decoder.image(stored))
    pixels, ids = [], []
    rows = step * -(-ROWS // step)
    for top in range(0, height, rows):
        box = Box(0, top, width, min(top + rows, height))
        part = decoder.part(stored, box)[0] if whole is None else whole[top : box.bottom]
        pixels.append(np.asarray(part)[::step, ::step])
        ids.append(np.ma.getdata(read_raster(str(mask), box=box))[::step, ::step, 0])
    image = np.concatenate(pixels)
    return Image.fromarray(image) if image.shape[2] == 3 else image, np.concatenate(ids)


def _pixels(
    stored: Stored, decoder: RowDecoder, image_processor: BaseImageProcessor, device: torch.device
) -> Pixels:
    """The image for the model, decoded at once where its processor resizes it, or where it has no parts."""
    if not has_parts(stored) or image_processor.to_dict().get("do_resize"):
        return prepare({"image": decoder.image(stored)}, image_processor).pixels[None].to(device)
    width, height = picture_size(stored)

    def read(first: int, last: int) -> Tensor:
        values = np.asarray(decoder.part(stored, Box(0, first, width, last))[0])
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]

    return RowReader((1, decoder.count_channels(stored), height, width), device, read)
