"""TIFFs of bands that Pillow does not read, and where on the earth a TIFF lies; rasterio is an extra."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pos_hf.data.files import Stored, pass_on_exhaustion, require_package, require_regular
from pos_hf.errors import FileInputError, InputError, first_sentence

# tags of TIFF and GeoTIFF
WIDTH, HEIGHT, BITS, PHOTOMETRY, SAMPLES, EXTRA_SAMPLES = 256, 257, 258, 262, 277, 338
GEO_KEYS = (33550, 33922, 34264, 34735)
COLORS_OF = {2: 3, 5: 4, 6: 3, 8: 3}  # RGB, CMYK, YCbCr, Lab
CACHE = 64  # MB of decoded tiles; GDAL's own default is a share of the memory, in each worker


class Layout(NamedTuple):
    """What a TIFF says of its first image."""

    height: int
    width: int
    bands: int
    is_picture: bool
    """Pillow reads all of it: one band of any depth, or colours of eight bits, transparency or none."""
    has_place: bool
    """It says where on the earth it lies."""


def tiff_layout(stored: Stored) -> Layout | None:
    """Read the tags of a TIFF file; None where it is none, or a damaged one."""
    path = str(stored["path"])
    if stored["bytes"] is not None or not path.lower().endswith((".tif", ".tiff")):
        return None
    try:
        require_regular(path)
        with open(path, "rb") as file:
            start = file.read(8)
            tags = ImageFileDirectory_v2(start + (file.read(8) if start[2:3] == b"+" else b""))
            file.seek(tags.next)
            tags.load(file)
        bands, bits = int(tags.get(SAMPLES, 1)), int(np.max(tags.get(BITS, 1)))
        # of a picture, the bands beyond its colours are said to be transparency
        is_transparent = not {1, 2}.isdisjoint(np.atleast_1d(tags.get(EXTRA_SAMPLES, ())).tolist())
        colors = COLORS_OF.get(tags.get(PHOTOMETRY, 1), 1)
        is_picture = bands == 1 or (bands == colors + is_transparent and bits == 8)
        return Layout(
            int(tags[HEIGHT]), int(tags[WIDTH]), bands, is_picture, any(key in tags for key in GEO_KEYS)
        )
    except Exception as error:  # who reads the picture says what is wrong
        pass_on_exhaustion(error)
        return None


def raster_layout(stored: Stored) -> Layout | None:
    """The layout of a TIFF of bands that are no picture's; None of any other image."""
    layout = tiff_layout(stored)
    return None if layout is None or layout.is_picture else layout


def read_raster(
    path: str, bands: Sequence[int] = (), window: tuple[int, int, int, int] | None = None
) -> np.ma.MaskedArray:
    """Read bands of a TIFF, or a part of them.

    Args:
        path: The file.
        bands: Counted from 1; all of them by default.
        window: First row, first column, rows and columns; the tiles or strips of it alone are decoded.

    Returns:
        Values [H, W, bands], masked where the file says that there are no data.

    Raises:
        InputError: It cannot be read, or rasterio is missing.
    """
    with opened_raster(path) as raster:
        part = None
        if window is not None:
            from rasterio.windows import Window

            row, column, height, width = window
            part = Window(column, row, width, height)
        values = raster.read(list(bands) or None, window=part, masked=True)
        return np.ma.transpose(values, (1, 2, 0))


@contextmanager
def opened_raster(path: str, **creation: Any) -> Iterator[Any]:
    """A TIFF opened by rasterio, to be read, or, with the options of a new file, to be written.

    Raises:
        InputError: It cannot be read, or rasterio is missing.
    """
    require_package("rasterio", "geo", path)
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            if not creation:
                require_regular(path)
            # no other driver: some of GDAL's formats name further files
            with rasterio.open(path, "w" if creation else "r", driver="GTiff", **creation) as raster:
                yield raster
    except InputError:
        raise
    except Exception as error:  # rasterio's errors have no common base, some are GDAL's own
        pass_on_exhaustion(error)
        if creation:
            raise
        raise FileInputError(
            path, f"cannot be read ({first_sentence(error)}): replace it", cause="unreadable"
        ) from error
