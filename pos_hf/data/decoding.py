"""From a stored picture to what the package sees: uint8 images and one-channel masks. No augmentation."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage
from PIL import ImageColor, ImageOps

from pos_hf.data.arguments import DataArguments
from pos_hf.data.segmentation_data import IGNORE_INDEX
from pos_hf.errors import InputError, first_sentence

Stored = dict[str, Any]
"""A picture in a dataset: {"path": str | None, "bytes": bytes | None}."""

STORED_IMAGE = Image(decode=False)
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class RowDecoder:
    """Decodes a batch of rows (the transform of every `Dataset` of the package).

    A row's `image` becomes a PIL RGB image, or uint8 [H, W, C] where it is stored as such an array (.npy);
    its `mask` becomes a PIL "L" image of class ids, 255 = ignore.

    Args:
        mask_values: Class id of a mask value; values not named stay as they are.
        mask_colors: (R, G, B) of each class id, for masks painted in colours.
        reduce_labels: Masks count classes from 1, and 0 is ignored.
        image_range: Values of deep (16-bit or float) images that become 0 and 255.
    """

    mask_values: tuple[tuple[int, int], ...] = ()
    mask_colors: tuple[tuple[int, ...], ...] = ()
    reduce_labels: bool = False
    image_range: tuple[float, float] | None = None

    @classmethod
    def from_arguments(cls, args: DataArguments) -> "RowDecoder":
        assert not isinstance(args.mask_values, str)  # parsed on construction
        return cls(
            mask_values=tuple((int(old), new) for old, new in (args.mask_values or {}).items()),
            mask_colors=tuple(ImageColor.getrgb(color) for color in args.mask_colors or ()),
            reduce_labels=bool(args.reduce_labels),
            image_range=None if args.image_range is None else (args.image_range[0], args.image_range[1]),
        )

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        decoders = {"image": self.image, "mask": self.mask}
        return {
            name: [decoders[name](stored) for stored in column] if name in decoders else column
            for name, column in batch.items()
        }

    def image(self, stored: Stored) -> PILImage.Image | np.ndarray:
        """Decode an image.

        Raises:
            InputError: It cannot be read, or is deep and `image_range` is not given.
        """
        name = stored["path"] or "an image"
        if name.endswith(".npy"):
            return self._to_bytes(read_array(name), name)
        picture = read_picture(stored)
        if picture.mode in DEEP_MODES:
            picture = PILImage.fromarray(self._to_bytes(np.asarray(picture), name))
        return picture.convert("RGB")

    def _to_bytes(self, values: np.ndarray, name: str) -> np.ndarray:
        if values.dtype == np.uint8:
            return values
        if self.image_range is None:
            raise InputError(
                f"{name} holds {values.dtype} values from {values.min()} to {values.max()}: set "
                "`image_range: [LOW, HIGH]` to the values that are to become black and white"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{name} holds values that are not finite: write numbers in their place")
        low, high = self.image_range
        clipped = np.clip(values.astype(np.float64), low, high)
        return ((clipped - low) * (255 / (high - low)) + 0.5).astype(np.uint8)

    def mask(self, stored: Stored) -> PILImage.Image:
        """Decode a mask.

        Raises:
            InputError: It cannot be read, has colours no class is known for, or ids beyond 255.
        """
        name = stored["path"] or "a mask"
        picture = read_picture(stored)
        if self.mask_colors:
            return PILImage.fromarray(self._color_ids(np.asarray(picture.convert("RGB"), np.int32), name))
        values = np.asarray(picture).astype(np.uint8) if picture.mode == "1" else np.asarray(picture)
        if values.ndim != 2:
            raise InputError(
                f"the mask {name} is painted in colours ({picture.mode}) where one channel of class ids is "
                "expected: list the classes' colours in `mask_colors`"
            )
        if values.dtype.kind == "f" or values.min() < 0 or values.max() >= len(self._lookup):
            raise InputError(f"the mask {name} holds {values.dtype} values that are no class ids: redraw it")
        ids = self._lookup[values]
        if ids.max() > IGNORE_INDEX:
            raise InputError(
                f"the mask {name} holds the value {ids.max()}, but class ids go from 0 to 254 and 255 means "
                "ignore: give it a class id in `mask_values`"
            )
        return PILImage.fromarray(ids.astype(np.uint8))

    @cached_property
    def _lookup(self) -> np.ndarray:
        """Class id of every 16-bit mask value."""
        ids = np.arange(1 << 16)
        if self.reduce_labels:
            ids[1:IGNORE_INDEX] -= 1
            ids[0] = IGNORE_INDEX
        for old, new in self.mask_values:
            ids[old] = new
        return ids

    def _color_ids(self, colors: np.ndarray, name: str) -> np.ndarray:
        codes = colors @ [1 << 16, 1 << 8, 1]
        known = np.array(self.mask_colors) @ [1 << 16, 1 << 8, 1]
        order = np.argsort(known)
        nearest = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
        unknown = np.unique(codes[known[nearest] != codes])
        if unknown.size:
            listed = ", ".join(f"#{code:06x}" for code in unknown[:5])
            raise InputError(
                f"the mask {name} has colours that no class has ({listed}): add them to `mask_colors`"
            )
        return nearest.astype(np.uint8)


def read_picture(stored: Stored) -> PILImage.Image:
    """Open a stored picture upright (its EXIF orientation applied).

    Raises:
        InputError: It is missing, truncated or no picture.
    """
    source = stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"])
    try:
        with PILImage.open(source) as picture:
            return ImageOps.exif_transpose(picture)
    # Pillow's readers raise whatever a damaged file leads them to, and its own error for a decompression bomb
    except Exception as error:
        raise InputError(
            f"{stored['path'] or 'a stored picture'} cannot be read: {first_sentence(error)}; replace it"
        ) from error


def read_array(path: str) -> np.ndarray:
    """Load an image stored as an array [H, W, C].

    Raises:
        InputError: It is missing, truncated or of another shape.
    """
    try:
        # mapped, not loaded: it refuses pickled objects, and a header that promises more than the file holds
        values = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy parses the header of a damaged file as Python source
        raise InputError(f"{path} cannot be read: {first_sentence(error)}; replace it") from error
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"{path} has the shape {values.shape}: store images as [height, width, channels]")
    if values.dtype.kind not in "uif":
        raise InputError(f"{path} holds {values.dtype} values: store images as whole or floating numbers")
    return np.array(values)


def rows_to_dataset(ids: Sequence[str], images: Sequence[Any], masks: Sequence[Any] | None = None) -> Dataset:
    """Make a `Dataset` of rows that decode when they are read.

    Args:
        ids: A name for each row.
        images: A path, or a PIL image, for each row.
        masks: The same for the masks; None for unlabeled rows.
    """
    columns: dict[str, list[Any]] = {"id": list(ids), "image": [_storable(image) for image in images]}
    features = {"id": Value("string"), "image": STORED_IMAGE}
    if masks is not None:
        columns["mask"] = [_storable(mask) for mask in masks]
        features["mask"] = STORED_IMAGE
    return Dataset.from_dict(columns, features=Features(features)).with_transform(RowDecoder())


def _storable(picture: Any) -> Any:
    return str(picture) if isinstance(picture, Path) else picture
