"""What must hold before training: masks can be read, fit their images and hold known ids. Repairs nothing."""

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from tqdm import tqdm

from pos_hf.data.segmentation_data import IGNORE_INDEX, SegmentationData
from pos_hf.errors import InputError


def validate(data: SegmentationData) -> None:
    """Read every mask and its image once; a progress bar appears when that takes long.

    Raises:
        InputError: names the first file that cannot be read, has another size than its image, or unknown ids.
    """
    for role, rows in data.masked_roles.items():
        for index in tqdm(range(len(rows)), desc=f"checking {role} masks", unit="mask", delay=2, leave=False):
            _check_row(rows, index, data.num_classes)


def _check_row(rows: Dataset, index: int, num_classes: int) -> None:
    try:
        row = rows[index]
    except (InputError, OSError) as error:
        raise InputError(f"{_mask_name(rows, index)} or its image cannot be used: {error}") from error
    image, mask = row["image"], row["mask"]
    if image.size != mask.size:
        raise InputError(
            f"the mask {_mask_name(rows, index)} is {mask.width} x {mask.height} pixels, but its image is "
            f"{image.width} x {image.height}: give both the same size"
        )
    present = np.flatnonzero(np.bincount(np.asarray(mask).ravel()))
    unknown = present[(present >= num_classes) & (present != IGNORE_INDEX)]
    if unknown.size:
        raise InputError(
            f"the mask {_mask_name(rows, index)} holds the ids {unknown.tolist()}, but the {num_classes} "
            f"classes have ids 0 to {num_classes - 1} (and 255 means ignore): correct the mask, or `id2label`"
        )


def _mask_name(rows: Dataset, index: int) -> str:
    """The mask's path, or its row's id where masks are stored inside the dataset."""
    row = (
        rows.with_format(None).cast_column("mask", ImageFeature(decode=False)).remove_columns("image")[index]
    )
    return row["mask"]["path"] or row["id"]
