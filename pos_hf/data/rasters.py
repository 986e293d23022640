"""TIFFs of bands that Pillow does not read, and where on the earth a TIFF lies; rasterio is an extra."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pos_hf.data.archives import inside_archive
from pos_hf.data.files import Stored, open_file, pass_on_exhaustion, require_package, require_regular
from pos_hf.errors import FileInputError, InputError, first_sentence

# tags of TIFF and GeoTIFF
WIDTH, HEIGHT, BITS, PHOTOMETRY, ORIENTATION, SAMPLES, EXTRA_SAMPLES = 256, 257, 258, 262, 274, 277, 338
GEO_KEYS = (33550, 33922, 34264, 34735)
COLORS_OF = {2: 3, 5: 4, 6: 3, 8: 3}  # RGB, CMYK, YCbCr, Lab
BLOCK = 256  # side of the tiles that are written
CACHE = 64  # MB of decoded tiles; GDAL's own default is a share of the memory, in each worker


class Box(NamedTuple):
    """A part of an image, in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


class Layout(NamedTuple):
    """What a TIFF says of its first image."""

    height: int
    width: int
    bands: int
    is_picture: bool
    """Pillow reads all of it: one band of any depth, or colours of eight bits, transparency or none."""
    is_plain: bool
    """rasterio and Pillow read the same: no palette, no ink, no single bits, no grey with transparency, not
    turned."""
    has_place: bool
    """It says where on the earth it lies."""


def tiff_layout(stored: Stored) -> Layout | None:
    """Read the tags of a TIFF file; None where it is none, or a damaged one."""
    path = str(stored["path"])
    if stored["bytes"] is not None or not path.lower().endswith((".tif", ".tiff")):
        return None
    try:
        with open_file(path) as file:
            start = file.read(8)
            tags = ImageFileDirectory_v2(start + (file.read(8) if start[2:3] == b"+" else b""))
            file.seek(tags.next)
            tags.load(file)
        bands, bits = int(tags.get(SAMPLES, 1)), int(np.max(tags.get(BITS, 1)))
        # of a picture, the bands beyond its colours are said to be transparency
        is_transparent = not {1, 2}.isdisjoint(np.atleast_1d(tags.get(EXTRA_SAMPLES, ())).tolist())
        photometry = tags.get(PHOTOMETRY, 1)
        colors = COLORS_OF.get(photometry, 1)
        is_picture = bands == 1 or (bands == colors + is_transparent and bits == 8)
        is_upright = photometry in (1, 2, 6) and tags.get(ORIENTATION, 1) == 1
        is_plain = not is_picture or (is_upright and bits >= 8 and bands != 2)
        has_place = not tags.keys().isdisjoint(GEO_KEYS)
        return Layout(int(tags[HEIGHT]), int(tags[WIDTH]), bands, is_picture, is_plain, has_place)
    except Exception as error:  # who reads the picture says what is wrong
        pass_on_exhaustion(error)
        return None


def raster_layout(stored: Stored) -> Layout | None:
    """The layout of a TIFF of bands that are no picture's; None of any other image."""
    layout = tiff_layout(stored)
    return None if layout is None or layout.is_picture else layout


def read_raster(path: str, bands: Sequence[int] = (), box: Box | None = None) -> np.ma.MaskedArray:
    """Read bands of a TIFF, or a part of them.

    Args:
        path: The file.
        bands: Counted from 1; all of them by default.
        box: The part; the tiles or strips that it touches alone are decoded.

    Returns:
        Values [H, W, bands], masked where the file says that there are no data.

    Raises:
        InputError: It cannot be read, or rasterio is missing.
    """
    with opened_raster(path) as raster:
        rows = None if box is None else ((box.top, box.bottom), (box.left, box.right))
        values = raster.read(list(bands) or None, window=rows, masked=True)
        return np.ma.transpose(values, (1, 2, 0))


@contextmanager
def opened_raster(path: str) -> Iterator[Any]:
    """A TIFF opened by rasterio; what fails in the block is said of the file.

    Raises:
        InputError: It cannot be read, or rasterio is missing.
    """
    require_package("rasterio", "geo", path)
    try:
        require_regular(path)
        source = open_file(path) if inside_archive(path) else path
        # no other driver: some of GDAL's formats name further files
        with _session() as rasterio, rasterio.open(source, driver="GTiff") as raster:
            yield raster
    except InputError:
        raise
    except Exception as error:  # rasterio's errors have no common base, some are GDAL's own
        pass_on_exhaustion(error)
        raise FileInputError(
            path, f"cannot be read ({first_sentence(error)}): replace it", cause="unreadable"
        ) from error


def keeps_place(path: str | Path) -> bool:
    """Whether what is made of a file should be a GeoTIFF, for it lies somewhere, or is no picture anyway."""
    layout = tiff_layout({"path": str(path), "bytes": None})
    return layout is not None and (layout.has_place or not layout.is_picture)


def read_place(path: str | Path) -> dict[str, Any]:
    """Where a TIFF lies, as options of a new one: coordinate system, and transform or ground control points.

    Raises:
        InputError: As `read_raster`.
    """
    with opened_raster(str(path)) as raster:
        points, system = raster.gcps
        return (
            {"gcps": points, "crs": system} if points else {"transform": raster.transform, "crs": raster.crs}
        )


def read_gaps(path: str | Path, box: Box) -> np.ndarray:
    """Where a part of a TIFF has no data in any band, or is transparent, bool [H, W].

    Raises:
        InputError: As `read_raster`.
    """
    with opened_raster(str(path)) as raster:
        return raster.dataset_mask(window=((box.top, box.bottom), (box.left, box.right))) == 0


@contextmanager
def written_raster(path: Path, size: tuple[int, int], place: dict[str, Any], **options: Any) -> Iterator[Any]:
    """A new GeoTIFF of one band of bytes, to be written part by part.

    Args:
        path: The file.
        size: Width and height.
        place: Of `read_place`.
        options: rasterio's.
    """
    width, height = size
    layout = {"width": width, "height": height, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    packed = {
        "compress": "deflate",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "if_safer",
    }
    with _session() as rasterio, rasterio.open(path, "w", **layout, **packed, **place, **options) as raster:
        yield raster


@contextmanager
def _session() -> Iterator[Any]:
    import rasterio
    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield rasterio
