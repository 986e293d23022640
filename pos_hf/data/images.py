"""The one opener of images of any format and number of channels. What values mean is in decoding.py."""

import importlib.util
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image as PILImage

from pos_hf.data.dicom import dicom_size, is_dicom, read_dicom
from pos_hf.data.files import (
    ORIENTATION,
    Stored,
    array_shape,
    file_of,
    is_array,
    mapped_array,
    opened,
    read_array,
    read_header,
    read_picture,
)
from pos_hf.data.rasters import Box, raster_layout, read_raster, tiff_layout
from pos_hf.errors import FileInputError

RGB = "RGB"
LARGE, LARGE_FILE = 1 << 24, 1 << 20
"""Pixels and bytes from which on an image is decoded in parts, where its format has any."""
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L")


def read_image(stored: Stored, bands: Sequence[int] = ()) -> PILImage.Image | np.ndarray:
    """Open an image and decode it.

    Args:
        stored: Of any format.
        bands: Counted from 1, in the order wanted; all of them by default.

    Returns:
        A picture, upright, or values [H, W, channels], masked where the file says that there are no data.
        With bands, always values.

    Raises:
        InputError: It cannot be read, or lacks a band.
    """
    if bands:
        _require_bands(stored, bands)
    if raster_layout(stored):
        return read_raster(stored["path"], bands)
    if is_array(stored):
        values = read_array(stored["path"])
    elif is_dicom(stored):
        values = read_dicom(stored["path"])
    elif bands:
        values = _upright_values(stored)
    else:
        return read_picture(stored)
    return values[..., [band - 1 for band in bands]] if bands else values


def has_parts(stored: Stored) -> bool:
    """Whether a part of an image can be read without the rest: of most TIFFs, and of arrays in .npy files."""
    layout = tiff_layout(stored)
    if layout:  # without rasterio Pillow decodes all of most TIFFs
        return layout.is_plain and importlib.util.find_spec("rasterio") is not None
    return is_array(stored) and stored["path"].lower().endswith(".npy")


def read_part(stored: Stored, box: Box, bands: Sequence[int] = ()) -> np.ndarray:
    """Decode a part of an image for which `has_parts` holds.

    Args:
        stored: The image.
        box: The part.
        bands: As in `read_image`.

    Returns:
        Values [H, W, channels], of a grey picture three equal ones, masked where there are no data.

    Raises:
        InputError: As `read_image`.
    """
    if bands:
        _require_bands(stored, bands)
    layout = tiff_layout(stored)
    if layout is None:
        values = mapped_array(stored["path"])[box.top : box.bottom, box.left : box.right]
        return values[..., [band - 1 for band in bands]] if bands else np.array(values)
    if not bands and layout.is_picture and layout.bands >= len(RGB):
        bands = range(1, len(RGB) + 1)
    values = read_raster(stored["path"], bands, box)
    is_grey = layout.is_picture and layout.bands == 1 and not bands
    return np.ma.repeat(values, len(RGB), 2) if is_grey else values


def is_large(stored: Stored) -> bool:
    """Whether an image or a mask has so many pixels that decoding all of them for one crop is slow."""
    if stored["bytes"] is not None:
        return False
    try:
        if os.path.getsize(file_of(stored["path"])) < LARGE_FILE:
            return False  # and is not opened a second time
    except OSError:  # who reads it says what is wrong
        return False
    width, height = picture_size(stored)
    return width * height > LARGE


def has_draft(stored: Stored) -> bool:
    """Whether an image can be decoded at a fraction of its size: a JPEG that is not turned."""
    if stored["bytes"] is not None or not str(stored["path"]).lower().endswith((".jpg", ".jpeg")):
        return False
    header = read_header(stored)
    return header.mode in ("L", RGB) and not header.is_turned


def read_draft(stored: Stored, shrinkage: float) -> tuple[PILImage.Image, int]:
    """Decode a picture for which `has_draft` holds at a half, a quarter or an eighth of its size.

    Args:
        stored: The picture.
        shrinkage: It will be made smaller by this factor.

    Returns:
        The picture, and the largest of 1, 2, 4 and 8 that is not above the factor, by which it is smaller.

    Raises:
        InputError: As `read_image`.
    """
    with opened(stored) as picture:
        shrink = next(factor for factor in (8, 4, 2, 1) if factor <= max(shrinkage, 1))
        picture.draft(None, (picture.width // shrink, picture.height // shrink))
        picture.load()
        return picture.copy(), shrink


def is_picture(stored: Stored) -> bool:
    """Whether an image is read by Pillow, and so has a mode and an orientation."""
    return not is_array(stored) and not is_dicom(stored) and raster_layout(stored) is None


def count_channels(stored: Stored, bands: Sequence[int] = ()) -> int:
    """Channels of an image as `read_image` reads it, 3 for any picture. Nothing is decoded.

    Raises:
        InputError: As `read_image`.
    """
    if bands:
        return len(bands)
    if layout := raster_layout(stored):
        return layout.bands
    return array_shape(stored["path"])[2] if is_array(stored) else len(RGB)


def picture_size(stored: Stored) -> tuple[int, int]:
    """Width and height of an image, upright; nothing is decoded.

    Raises:
        InputError: As `read_image`.
    """
    if layout := raster_layout(stored):
        return layout.width, layout.height
    if is_array(stored):
        height, width, _ = array_shape(stored["path"])
        return width, height
    if is_dicom(stored):
        return dicom_size(stored["path"])
    with opened(stored) as picture:
        is_across = PILImage.Image.getexif(picture).get(ORIENTATION, 1) in (5, 6, 7, 8)
        return picture.size[::-1] if is_across else picture.size


def _require_bands(stored: Stored, bands: Sequence[int]) -> None:
    if is_array(stored):
        found = array_shape(stored["path"])[2]
    elif layout := raster_layout(stored):
        found = layout.bands
    elif is_dicom(stored):
        found = len(RGB)
    else:
        with opened(stored) as picture:
            found = len(RGB) if picture.mode == "P" else PILImage.getmodebands(picture.mode)
    if max(bands) > found:
        raise FileInputError(
            stored["path"] or "an image",
            f"has {found} bands, but `bands` asks for band {max(bands)}: correct it",
        )


def _upright_values(stored: Stored) -> np.ndarray:
    """The values of a picture, [H, W, channels]; of one with a palette its colours."""
    picture = read_picture(stored)
    plain = {"P": RGB, "1": "L"}.get(picture.mode)
    return np.atleast_3d(np.asarray(picture if plain is None else picture.convert(plain)))
