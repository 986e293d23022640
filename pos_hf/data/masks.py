"""Masks as they are stored, and what they must be: as large as their image, of ids that have a class."""

from typing import Any

import numpy as np
from PIL import Image

from pos_hf.data.files import ARRAYS, Stored, read_mask_array, read_picture
from pos_hf.data.geometry import Large, Picture, size_of
from pos_hf.errors import FileInputError
from pos_hf.values import IGNORE_INDEX


def is_matrix(stored: Stored) -> bool:
    """Whether a mask is stored as an array and not as a picture."""
    return stored["bytes"] is None and stored["path"].lower().endswith((*ARRAYS, ".mat"))


def mask_values(stored: Stored) -> np.ndarray:
    """A mask as it is stored: values [H, W], or the channels of a painted one, [H, W, C].

    Raises:
        InputError: It cannot be read.
    """
    if is_matrix(stored):
        return read_mask_array(stored["path"])
    picture = read_picture(stored)
    return np.asarray(picture).astype(np.uint8) if picture.mode == "1" else np.asarray(picture)


def mask_name(stored_row: dict[str, Any]) -> str:
    """The mask's path, or its row's id where masks are stored inside the dataset."""
    return stored_row["mask"]["path"] or str(stored_row.get("id", "a mask"))


def require_same_size(image: Picture | Large, mask: Image.Image | Large, name: str) -> None:
    """Compare an image with its mask.

    Raises:
        InputError: Their sizes differ.
    """
    width, height = size_of(image)
    if (width, height) != mask.size:
        raise mask_error(
            name,
            f"is {mask.size[0]} x {mask.size[1]} pixels, but its image is {width} x {height}: give both the "
            "same size",
        )


def unknown_ids(counts: np.ndarray, num_classes: int) -> list[int]:
    """Ids without a class: not 0 to num_classes - 1 and not 255. `counts` are pixels of each id, [256]."""
    return [id for id in np.flatnonzero(counts).tolist() if num_classes <= id != IGNORE_INDEX]


def require_known_ids(counts: np.ndarray, num_classes: int, name: str) -> None:
    """Look for ids without a class.

    Args:
        counts: Pixels of each id in a mask, int [256].
        num_classes: Classes have ids 0 to num_classes - 1.
        name: The mask's, for the message.

    Raises:
        InputError: There is one that is not 255.
    """
    if unknown := unknown_ids(counts, num_classes):
        listed = f"{unknown[:5]} and {len(unknown) - 5} others" if len(unknown) > 6 else unknown
        raise mask_error(
            name,
            f"holds the ids {listed}, but the {num_classes} classes have ids 0 to {num_classes - 1} (and 255 "
            "means ignore): correct the mask, or add the classes",
        )


def mask_error(name: str, problem: str, cause: str = "") -> FileInputError:
    """Of a mask: the arguments are those of `FileInputError`."""
    return FileInputError(name, problem, what="the mask", cause=cause)
