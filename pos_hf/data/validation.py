"""What must hold before training: masks can be read, fit their images and hold known ids. Repairs nothing."""

import numpy as np
from tqdm import tqdm

from pos_hf.data.decoding import Stored
from pos_hf.data.segmentation_data import IGNORE_INDEX, SegmentationData
from pos_hf.data.views import Picture
from pos_hf.errors import InputError


def validate(data: SegmentationData) -> None:
    """Read every mask and its image once; a progress bar appears when that takes long.

    Raises:
        InputError: names the first file that cannot be read, has another size than its image, or unknown ids.
    """
    for role, rows in data.masked_roles.items():
        stored = rows.with_format(None)
        for index in tqdm(range(len(rows)), desc=f"checking {role} masks", unit="mask", delay=2, leave=False):
            row = rows[index]
            name = mask_name(stored[index])
            require_same_size(row["image"], row["mask"], name)
            require_known_ids(
                np.bincount(np.asarray(row["mask"]).ravel(), minlength=256), data.num_classes, name
            )


def mask_name(stored_row: dict[str, Stored]) -> str:
    """The mask's path, or its row's id where masks are stored inside the dataset."""
    return stored_row["mask"]["path"] or str(stored_row["id"])


def require_same_size(image: Picture, mask: Picture, name: str) -> None:
    """Compare an image with its mask.

    Raises:
        InputError: Their sizes differ.
    """
    (image_height, image_width), (height, width) = (
        np.asarray(picture).shape[:2] for picture in (image, mask)
    )
    if (image_height, image_width) != (height, width):
        raise InputError(
            f"the mask {name} is {width} x {height} pixels, but its image is {image_width} x {image_height}: "
            "give both the same size"
        )


def require_known_ids(counts: np.ndarray, num_classes: int, name: str) -> None:
    """Look for ids without a class.

    Args:
        counts: Pixels of each id in a mask, int [256].
        num_classes: Classes have ids 0 to num_classes - 1.
        name: The mask's, for the message.

    Raises:
        InputError: There is one that is not 255.
    """
    unknown = [id for id in np.flatnonzero(counts).tolist() if num_classes <= id != IGNORE_INDEX]
    if unknown:
        raise InputError(
            f"the mask {name} holds the ids {unknown}, but the {num_classes} classes have ids 0 to "
            f"{num_classes - 1} (and 255 means ignore): correct the mask, or add the classes"
        )
