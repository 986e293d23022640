"""Decoded images and masks in files of a folder, for later epochs to read. Decoding is in decoding.py."""

import hashlib
import logging
import os
import reprlib
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image

from pos_hf.data.drawing import files_in, is_drawing
from pos_hf.data.files import Stored, file_of
from pos_hf.data.images import count_channels, picture_size
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError

logger = logging.getLogger(__name__)

SAMPLE = 16  # images of each role whose size is looked at
Picture = Image.Image | np.ndarray


def kept(folder: Path, stored: Stored, settings: str, decode: Callable[[], Picture]) -> Picture:
    """A picture as it was decoded before; where it was not, decode it and keep it.

    Args:
        folder: Of the cache; any number of processes and runs may share it, and it may be deleted.
        stored: The picture. Another content, or time of change, is another picture.
        settings: All that decoding depends on beside the file.
        decode: Returns the picture, uint8.
    """
    try:
        file = folder / f"{_name(stored, settings)}.npy"
    except (OSError, ValueError):
        return decode()  # which says what is wrong with the file
    try:
        values = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # absent, or damaged by others: kept anew
        picture = decode()
        _keep(np.asarray(picture), file)
        return picture
    return Image.fromarray(values) if values.ndim == 2 or values.shape[2] == 3 else np.array(values)


def _name(stored: Stored, settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    paths = [stored["path"]]
    if stored["bytes"] is not None:
        digest.update(stored["bytes"])
        paths = files_in(stored) if is_drawing(stored) else []
    for path in map(os.path.abspath, paths):
        status = os.stat(file_of(path))
        digest.update(f"{path}\0{status.st_mtime_ns}\0{status.st_size}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _keep(values: np.ndarray, file: Path) -> None:
    aside = file.with_name(f"{file.stem}.{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as opened:
            np.save(opened, values)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(aside, file)
    except OSError as error:  # training can do without
        with suppress(OSError):
            aside.unlink()
        logger.warning(
            "image_cache: %s cannot be written (%s): it is decoded each time", file, error.strerror
        )


def require_room(data: SegmentationData, folder: Path) -> str:
    """Estimate how much a cache will hold, and compare it with the disk.

    Args:
        data: Whose images will be decoded.
        folder: Of the cache.

    Returns:
        A sentence with the size.

    Raises:
        InputError: The disk has less room, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        name, reason = reprlib.repr(str(folder)), error.strerror if isinstance(error, OSError) else error
        raise InputError(f"image_cache {name} cannot be made ({reason}): name another folder") from error
    needed = sum(_bytes_of(rows) for rows in {**data.masked_roles, "unlabeled": data.unlabeled}.values())
    there = sum(file.stat().st_size for file in folder.glob("*.npy"))
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise InputError(
            f"image_cache {folder} will hold about {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free "
            "there: give another folder, make the images smaller (scripts/examples/resize_folder.py), or "
            "leave it out"
        )
    return f"decoded images and masks are kept in {folder}, about {needed / 1e9:.3g} GB"


def _bytes_of(rows: Dataset) -> float:
    stored = rows.with_format(None)
    values = []
    for index in np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), dtype=int).tolist():
        row = stored[index]
        try:
            width, height = picture_size(row["image"])
            values.append(width * height * (count_channels(row["image"]) + ("mask" in row)))
        except InputError:
            continue  # found where images are read
    return float(np.mean(values)) * len(rows) if values else 0.0
