"""Opens what a dataset's folder holds: pictures, arrays and texts. Images of any kind: see images.py."""

import base64
import errno
import importlib.util
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pos_hf.data.archives import inside_archive, read_member
from pos_hf.errors import FileInputError, InputError, first_sentence

Stored = dict[str, Any]
"""A picture in a dataset: {"path": str | None, "bytes": bytes | None}."""

# Pillow recognises files by their content, and some of its other readers start programs (EPS: Ghostscript)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

ARRAYS = (".npy", ".npz")
SAVE_AS_ARRAY = "save it as a .npy array [height, width, channels]"

HEIC = (".heic", ".heif")
PAGE = re.compile(r"(.+\.tiff?)!(\d+)", re.IGNORECASE)
"""Path of a TIFF, and the number of one of its pages from 1."""

ORIENTATION, SAMPLES_PER_PIXEL = 0x0112, 277  # tags of EXIF and TIFF


class Header(NamedTuple):
    """What a picture says of itself; nothing is decoded for it."""

    mode: str
    """Pillow's."""
    is_turned: bool
    """Its EXIF tag asks for another orientation than the stored one."""


def read_picture(stored: Stored) -> PILImage.Image:
    """Decode a stored picture, upright (its EXIF orientation applied).

    Raises:
        InputError: It is missing, truncated, no picture of `FORMATS`, or has bands that Pillow passes over.
    """
    with opened(stored) as picture:
        return ImageOps.exif_transpose(picture)


def read_header(stored: Stored) -> Header:
    """Read what `read_picture` would decode.

    Raises:
        InputError: As `read_picture`.
    """
    with opened(stored) as picture:
        # the base class's: a PNG's own reads all of the file for a tag behind the pixels
        return Header(picture.mode, PILImage.Image.getexif(picture).get(ORIENTATION, 1) != 1)


def read_mask_array(path: str) -> np.ndarray:
    """Load a mask stored as a matrix: alone in a .npy or .npz file, or the first one of a .mat file.

    Returns:
        [H, W].

    Raises:
        InputError: It is missing or damaged, or holds no such matrix.
    """
    try:
        require_regular(path)
        values = _only_array(path) if path.lower().endswith(ARRAYS) else _matlab_matrix(path)
    except InputError:
        raise
    except Exception as error:
        pass_on_exhaustion(error)
        raise FileInputError(
            path, f"cannot be read ({first_sentence(error)}): replace it", cause="unreadable"
        ) from error
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "uifb":
        raise FileInputError(path, f"holds {values.dtype} values of shape {values.shape}: store [H, W] ids")
    return np.array(values, np.uint8) if values.dtype.kind == "b" else np.array(values)


def _matlab_matrix(path: str) -> np.ndarray:
    require_package("scipy", "mat", path)
    from scipy.io import loadmat

    with open_file(path) as file:
        content = loadmat(file)
    found: list[np.ndarray] = []
    waiting: list[Any] = [value for name, value in content.items() if not name.startswith("__")]
    while waiting:  # structures hold their fields in arrays of one element
        value = waiting.pop(0)
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype.names:
            waiting += [value[name] for name in value.dtype.names]
        elif value.dtype.kind == "O":
            waiting += list(value.ravel())
        elif value.ndim == 2 and min(value.shape) > 1:
            found.append(value)
    if not found:
        raise FileInputError(path, "holds no matrix: store the mask as one [height, width]")
    return found[0]  # groundTruth.Segmentation comes before its Boundaries


@contextmanager
def opened(stored: Stored) -> Iterator[PILImage.Image]:
    """A stored picture, not yet decoded; what fails in the block is said of the file.

    Raises:
        InputError: As `read_picture`.
    """
    path, content = stored["path"], stored["bytes"]
    name = path or "a stored picture"
    file, page = of_page(path) if path and content is None else (path, None)
    try:
        if content is None:
            require_regular(file)
        if content is None and inside_archive(file):
            content = read_member(file)
        if content is None and path.endswith(".json"):  # LabelMe's, with the image inside
            content = base64.b64decode(json.loads(read_text(Path(path)))["imageData"])
        source = file if content is None else io.BytesIO(content)
        with PILImage.open(source, formats=_formats_of(name)) as picture:
            if page is None:
                _require_one_page(picture, name)
            else:
                picture.seek(page - 1)
            _require_all_bands(picture, name)
            _require_all_bits(picture, name)
            yield picture
    except InputError:
        raise
    # Pillow's readers raise whatever a damaged file leads them to, and its own error for a decompression bomb
    except Exception as error:
        pass_on_exhaustion(error)
        raise FileInputError(name, _why_unreadable(error, name), cause="unreadable") from error


def _why_unreadable(error: Exception, name: str) -> str:
    if not isinstance(error, UnidentifiedImageError):
        return f"cannot be read ({first_sentence(error)}): replace it"
    if name.lower().endswith((".tif", ".tiff")):
        return f"cannot be read: replace it, or, if it holds many bands, {SAVE_AS_ARRAY}"
    return f"cannot be read as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: replace it"


def file_of(path: str) -> str:
    """The file on the disk that holds a page or a member of an archive; any other path as it is."""
    file, _ = of_page(path)
    archive = inside_archive(file)
    return archive[0] if archive else file


def open_file(path: str) -> BinaryIO:
    """A file's bytes, of a member of an archive too.

    Raises:
        InputError: It is a pipe or a device, or not in its archive.
        OSError: There is no such file.
    """
    require_regular(path)
    return io.BytesIO(read_member(path)) if inside_archive(path) else open(path, "rb")


def require_regular(path: str | Path) -> None:
    """Refuse what could be waited for without an end.

    Raises:
        InputError: It is a pipe or a device.
        OSError: There is no such file.
    """
    try:
        mode = os.stat(file_of(str(path))).st_mode
    except ValueError as error:  # a null byte
        raise FileNotFoundError(errno.ENOENT, "no file can have this name", repr(str(path))) from error
    if not stat.S_ISREG(mode):
        raise FileInputError(
            str(path), "cannot be read (it is a pipe or a device): replace it", cause="unreadable"
        )


def _formats_of(name: str) -> tuple[str, ...]:
    """The readers that may look at a file."""
    if not name.lower().endswith(HEIC):
        return FORMATS
    require_package("pillow_heif", "heic", name)
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return ("HEIF",)


def of_page(path: str) -> tuple[str, int | None]:
    """The file of a page of a TIFF, and its number; of any other path the path itself and None."""
    match = PAGE.fullmatch(path)
    return (match[1], int(match[2])) if match else (path, None)


def pages_of(path: str) -> list[str]:
    """The pages of a TIFF that has several of one size; of any other file its path alone."""
    if not path.lower().endswith((".tif", ".tiff")):
        return [path]
    try:
        require_regular(path)
        with PILImage.open(path, formats=("TIFF",)) as picture:
            count = _count_pages(picture)
    except Exception as error:  # who reads the picture says what is wrong
        pass_on_exhaustion(error)
        return [path]
    return [f"{path}!{page}" for page in range(1, count + 1)] if count > 1 else [path]


def _count_pages(picture: PILImage.Image) -> int:
    size, pages = picture.size, getattr(picture, "n_frames", 1)
    if pages > 1:
        picture.seek(1)  # further pages of other sizes are thumbnails
        pages = pages if picture.size == size else 1
        picture.seek(0)
    return pages


def _require_one_page(picture: PILImage.Image, name: str) -> None:
    """Pillow reads one page of a TIFF, and says nothing of the others."""
    if isinstance(picture, TiffImageFile) and (pages := _count_pages(picture)) > 1:
        raise FileInputError(
            name,
            f"holds {pages} pages, of which one would be read: set `split_pages: true` to take each for an "
            f"image, or, if they are bands, {SAVE_AS_ARRAY}",
            cause="pages",
        )


def _require_all_bands(picture: PILImage.Image, name: str) -> None:
    """Pillow reads at most four bands of a TIFF, and says nothing of the others."""
    if not isinstance(picture, TiffImageFile):
        return
    samples, bands = picture.tag_v2.get(SAMPLES_PER_PIXEL, 1), len(picture.getbands())
    if samples > 4 or samples > bands == 1:
        raise FileInputError(name, f"holds {samples} bands, of which {bands} would be read: {SAVE_AS_ARRAY}")


def _require_all_bits(picture: PILImage.Image, name: str) -> None:
    """Pillow reads the upper 8 bits of a PNG's 16-bit colours, and says nothing of the others."""
    if not isinstance(picture, PngImageFile) or picture.mode not in ("RGB", "RGBA"):
        return
    if any(";16" in str(tile.args) for tile in picture.tile):
        raise FileInputError(
            name, f"holds colours of 16 bits, of which 8 would be read: {SAVE_AS_ARRAY}, or with 8 bits"
        )


def require_package(module: str, extra: str, name: str) -> None:
    """Refuse a file whose reader is not installed.

    Args:
        module: What reads it.
        extra: Of this package, that installs it.
        name: The file's.

    Raises:
        InputError: It is missing.
    """
    if importlib.util.find_spec(module) is None:
        raise FileInputError(name, f"needs {module}: `pip install 'pos_hf[{extra}]'`")


def pass_on_exhaustion(error: Exception) -> None:
    """Raise an error that says nothing about the file: the process may open no more of them."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        raise error


def read_array(path: str) -> np.ndarray:
    """Load an image stored as an array [H, W, C].

    Raises:
        InputError: It is missing, truncated or of another shape.
    """
    return np.array(mapped_array(path))


def array_shape(path: str) -> tuple[int, int, int]:
    """Height, width and channels of an image stored as an array; of a .npy file its header alone is read.

    Raises:
        InputError: As `read_array`.
    """
    height, width, channels = mapped_array(path).shape
    return height, width, channels


def is_array(stored: Stored) -> bool:
    """Whether an image is a .npy or .npz file; a dataset that holds the bytes themselves holds pictures."""
    return stored["bytes"] is None and str(stored["path"]).lower().endswith(ARRAYS)


def mapped_array(path: str) -> np.ndarray:
    """An image stored as an array [H, W, C]; of a .npy file what is looked at alone is loaded.

    Raises:
        InputError: As `read_array`.
    """
    try:
        require_regular(path)
        values = _only_array(path)
    except InputError:
        raise
    except Exception as error:  # numpy parses the header of a damaged file as Python source
        pass_on_exhaustion(error)
        raise FileInputError(
            path, f"cannot be read ({first_sentence(error)}): replace it", cause="unreadable"
        ) from error
    if values.ndim != 3 or 0 in values.shape:
        raise FileInputError(path, f"has the shape {values.shape}: store images as [height, width, channels]")
    if values.dtype.kind not in "uif":
        raise FileInputError(path, f"holds {values.dtype} values: store images as whole or floating numbers")
    return values


def _only_array(path: str) -> np.ndarray:
    if path.lower().endswith(".npy") and not inside_archive(path):
        # mapped, not loaded: it refuses pickled objects, and a header that promises more than the file holds
        return np.lib.format.open_memmap(path, mode="r")
    with open_file(path) as file:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            return arrays
        if len(arrays.files) != 1:
            raise FileInputError(path, f"holds the arrays {', '.join(arrays.files)}: store one alone")
        return arrays[arrays.files[0]]


def read_text(path: Path) -> str:
    """Read a text in UTF-8, with or without a byte order mark.

    Raises:
        InputError: It is a pipe or a device.
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    with open_file(str(path)) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        return text.read()
