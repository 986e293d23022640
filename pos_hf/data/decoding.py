"""From a stored picture to what the package sees: RGB images and one-channel masks. No augmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from pos_hf.errors import InputError

Batch = dict[str, list[Any]]


def decode_rows(batch: Batch) -> Batch:
    """Bring a batch's images to RGB and its masks to one uint8 channel (a `Dataset` transform)."""
    decoded = dict(batch)
    if "image" in batch:
        decoded["image"] = [image.convert("RGB") for image in batch["image"]]
    if "mask" in batch:
        decoded["mask"] = [to_class_ids(mask) for mask in batch["mask"]]
    return decoded


def to_class_ids(mask: PILImage.Image) -> PILImage.Image:
    """Read a mask as class ids.

    Args:
        mask: PIL image of one channel: grayscale, palette (its indices are the ids), 1 or 16 bits.

    Returns:
        PIL "L" image of class ids.

    Raises:
        InputError: The mask has several channels, or ids beyond 255.
    """
    ids = np.asarray(mask)
    if ids.ndim != 2:
        raise InputError(
            f"a mask has {ids.shape[2]} channels where one channel of class ids is expected: "
            "turn its colours into class ids first"
        )
    if ids.max(initial=0) > 255:
        raise InputError(
            f"a mask holds the id {ids.max()}, but class ids go from 0 to 254 and 255 means ignore"
        )
    return PILImage.fromarray(ids.astype(np.uint8))


def rows_to_dataset(ids: Sequence[str], images: Sequence[Any], masks: Sequence[Any] | None = None) -> Dataset:
    """Make a `Dataset` of rows that decode lazily.

    Args:
        ids: A name for each row.
        images: A path, or a PIL image, for each row.
        masks: The same for the masks; None for unlabeled rows.
    """
    columns = {"id": list(ids), "image": [_storable(image) for image in images]}
    features = {"id": Value("string"), "image": Image()}
    if masks is not None:
        columns["mask"] = [_storable(mask) for mask in masks]
        features["mask"] = Image()
    return Dataset.from_dict(columns, features=Features(features)).with_transform(decode_rows)


def _storable(picture: Any) -> Any:
    return str(picture) if isinstance(picture, Path) else picture
