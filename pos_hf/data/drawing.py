"""Masks that are drawn from annotated shapes when they are read; formats/ reads the shapes.

A drawing is stored where a mask's bytes would be. A pixel belongs to an outline when its centre lies inside.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from pos_hf.data.files import Stored, read_picture
from pos_hf.data.images import picture_size
from pos_hf.data.run_lengths import brush_strokes, decompressed
from pos_hf.errors import FileInputError, InputError, first_sentence

MAGIC = b"drawing of pos_hf\n"
LIMIT = 1e7  # pixels; coordinates beyond are no annotation's
MAX_PIXELS = 1 << 30

Geometry = dict[str, Any]
"""One of
{"rings": [[x, y, x, y, ...], ...]}: outlines, filled by the even-odd rule, so that rings inside are holes;
{"parts": [[x, y, ...], ...]}: outlines that are filled one by one;
{"ellipse": [center x, center y, radius x, radius y, degrees]};
{"line": [x, y, ...], "width": pixels};
{"runs": [background, object, background, ...] or COCO's compressed text, "box": [left, top, width, height],
"down": whether they run down the columns};
{"brush": Label Studio's run lengths in base64, "size": [width, height]};
{"file": path}: what is not zero in a picture of the mask's size;
{"png": text in base64, "corner": [left, top], "zipped": bool}: what is not zero, or not transparent.
"""


def drawing(
    name: str,
    shapes: Sequence[tuple[int, Geometry]],
    fill: int,
    size: tuple[int, int] | None = None,
    image: str = "",
    relative: bool = False,
) -> Stored:
    """Store shapes as a mask.

    Args:
        name: The annotation's, for messages; no file's path, which `datasets` would keep alone.
        shapes: Class id and geometry, drawn in this order.
        fill: Class id where no shape is.
        size: Width and height in pixels; None takes those of the image, upright.
        image: The image's path.
        relative: Coordinates of rings are shares of width and height.
    """
    content = {"fill": fill, "size": size, "image": image, "relative": relative, "shapes": shapes}
    return {"path": name, "bytes": MAGIC + json.dumps(content, separators=(",", ":")).encode()}


def blank(image: str, class_id: int) -> Stored:
    """The mask of an image that shows one class alone."""
    return drawing(f"background of {image}", [], class_id, image=image)


def is_drawing(stored: Stored) -> bool:
    """Whether a stored mask is to be drawn."""
    return stored["bytes"] is not None and stored["bytes"].startswith(MAGIC)


def files_in(stored: Stored) -> list[str]:
    """Paths of the pictures that a drawing is made of."""
    shapes = json.loads(stored["bytes"][len(MAGIC) :])["shapes"]
    return [geometry["file"] for _, geometry in shapes if "file" in geometry]


def draw(stored: Stored) -> np.ndarray:
    """Draw a mask.

    Returns:
        Class ids, uint8 [H, W].

    Raises:
        InputError: A shape cannot be drawn, or the image that gives the size cannot be read.
    """
    content, name = json.loads(stored["bytes"][len(MAGIC) :]), stored["path"]
    width, height = content["size"] or picture_size({"path": content["image"], "bytes": None})
    if width * height > MAX_PIXELS:
        raise FileInputError(name, f"is for an image of {width} x {height} pixels: correct its size")
    ids = np.full((height, width), content["fill"], np.uint8)
    scale = (width, height) if content["relative"] else (1, 1)
    for class_id, geometry in content["shapes"]:
        try:
            paint(ids, class_id, geometry, scale)
        except InputError as error:
            raise FileInputError(name, str(error)) from error
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, zlib.error) as error:
            problem = f"has a shape that cannot be drawn ({first_sentence(error)}): correct or remove it"
            raise FileInputError(name, problem) from error
    return ids


def paint(ids: np.ndarray, class_id: int, geometry: Geometry, scale: tuple[int, int] = (1, 1)) -> None:
    """Give the pixels of a shape a class, in place."""
    if "rings" in geometry:
        rings = [_points(ring) * np.array(scale) for ring in geometry["rings"]]
        _paint_rings(ids, class_id, [ring for ring in rings if len(ring) > 2])
    elif "parts" in geometry:
        for ring in geometry["parts"]:
            paint(ids, class_id, {"rings": [ring]}, scale)
    elif "ellipse" in geometry:
        _paint_ellipse(ids, class_id, *geometry["ellipse"])
    elif "line" in geometry:
        _paint_line(ids, class_id, _points(geometry["line"]), geometry["width"])
    elif "file" in geometry:
        _paint_file(ids, class_id, geometry["file"])
    elif "runs" in geometry:
        left, top, width, height = geometry["box"]
        runs = geometry["runs"]
        runs = decompressed(runs) if isinstance(runs, str) else runs
        if sum(runs) != width * height or min(runs) < 0:
            raise ValueError(f"its runs are {sum(runs)} pixels long, not {width} x {height}")
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        shaped = inside.reshape(width, height).T if geometry["down"] else inside.reshape(height, width)
        _paste(ids, class_id, shaped, left, top)
    elif "brush" in geometry:
        _paste(ids, class_id, brush_strokes(base64.b64decode(geometry["brush"]), *geometry["size"]), 0, 0)
    else:
        left, top = geometry["corner"]
        _paste(ids, class_id, _bitmap(geometry["png"], geometry["zipped"]), left, top)


def _points(flat: Sequence[float]) -> np.ndarray:
    points = np.array(flat, np.float64).reshape(-1, 2)
    if not (np.abs(points) < LIMIT).all():
        raise ValueError("a coordinate is no finite number of pixels")
    return points


def _paint_rings(ids: np.ndarray, class_id: int, rings: list[np.ndarray]) -> None:
    """Toggle what is right of every crossing of an outline with the middle of a row."""
    if not rings:
        return
    first = np.concatenate(rings)
    second = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    (left, top), (right, bottom) = first.min(0), first.max(0)
    # rows and columns whose centres may lie inside
    top, bottom = (int(np.clip(np.ceil(edge - 0.5), 0, ids.shape[0])) for edge in (top, bottom))
    left, right = (int(np.clip(np.ceil(edge - 0.5), 0, ids.shape[1])) for edge in (left, right))
    if top >= bottom or left >= right:
        return
    down = first[:, 1:] <= second[:, 1:]
    (x0, y0), (x1, y1) = np.where(down, first, second).T, np.where(down, second, first).T
    start, stop = (np.clip(np.ceil(edge - 0.5), top, bottom).astype(np.int64) for edge in (y0, y1))
    lengths = stop - start
    edges = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + start[edges]
    slopes = (x1 - x0) / np.where(y1 > y0, y1 - y0, 1)
    crossings = x0[edges] + (rows + 0.5 - y0[edges]) * slopes[edges]
    columns = np.clip(np.ceil(crossings - 0.5), left, right).astype(np.int64)
    width = right - left + 1
    toggles = np.bincount((rows - top) * width + columns - left, minlength=(bottom - top) * width)
    inside = np.cumsum(toggles.reshape(-1, width), axis=1)[:, :-1] % 2 == 1
    ids[top:bottom, left:right][inside] = class_id


def _centers(
    ids: np.ndarray, left: float, top: float, right: float, bottom: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A view of the pixels of a box, and their centres."""
    if not all(abs(edge) < LIMIT for edge in (left, top, right, bottom)):
        raise ValueError("a coordinate is no finite number of pixels")
    rows = np.arange(max(int(top) - 1, 0), min(int(bottom) + 2, ids.shape[0]))
    columns = np.arange(max(int(left) - 1, 0), min(int(right) + 2, ids.shape[1]))
    if not rows.size or not columns.size:
        return ids[:0, :0], np.empty((0, 0)), np.empty((0, 0))
    view = ids[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return view, columns[None, :] + 0.5, rows[:, None] + 0.5


def _paint_ellipse(
    ids: np.ndarray, class_id: int, x: float, y: float, across: float, down: float, degrees: float
) -> None:
    reach = max(across, down)
    view, columns, rows = _centers(ids, x - reach, y - reach, x + reach, y + reach)
    if reach <= 0 or not view.size:
        return
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along = (columns - x) * cosine + (rows - y) * sine
    aside = (rows - y) * cosine - (columns - x) * sine
    view[along**2 * down**2 + aside**2 * across**2 <= (across * down) ** 2] = class_id


def _paint_line(ids: np.ndarray, class_id: int, points: np.ndarray, width: float) -> None:
    """Every pixel whose centre is nearer than half the width to one of the segments."""
    for (x0, y0), (x1, y1) in pairwise(points):
        reach = width / 2
        view, columns, rows = _centers(
            ids, min(x0, x1) - reach, min(y0, y1) - reach, max(x0, x1) + reach, max(y0, y1) + reach
        )
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-12)
        share = np.clip(((columns - x0) * (x1 - x0) + (rows - y0) * (y1 - y0)) / length, 0, 1)
        distance = (columns - x0 - share * (x1 - x0)) ** 2 + (rows - y0 - share * (y1 - y0)) ** 2
        view[distance <= reach**2] = class_id


def _paint_file(ids: np.ndarray, class_id: int, path: str) -> None:
    picture = read_picture({"path": path, "bytes": None})
    if "A" in picture.getbands() and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("L")  # transparency that says nothing
    inside = _solid(picture)
    if inside.shape != ids.shape:
        (height, width), (rows, columns) = inside.shape, ids.shape
        raise InputError(
            f"has an object in {path} of {width} x {height} pixels, but its image is {columns} x {rows}: "
            "give both the same size"
        )
    ids[inside] = class_id


def _bitmap(text: str, zipped: bool) -> np.ndarray:
    content = base64.b64decode(text, validate=True)
    content = zlib.decompressobj().decompress(content, MAX_PIXELS) if zipped else content
    return _solid(read_picture({"path": None, "bytes": content}))


def _solid(picture: Image.Image) -> np.ndarray:
    """Where a picture is not zero, or not transparent."""
    if "A" in picture.getbands():
        return np.asarray(picture.getchannel("A")) > 0
    return np.asarray(picture if picture.mode in ("1", "L", "P", "I;16") else picture.convert("L")) > 0


def _paste(ids: np.ndarray, class_id: int, inside: np.ndarray, left: float, top: float) -> None:
    """What lies beyond the image's border is cut off."""
    column, row = round(left), round(top)
    inside = inside[max(-row, 0) :, max(-column, 0) :]
    view = ids[max(row, 0) :, max(column, 0) :][: inside.shape[0], : inside.shape[1]]
    view[inside[: view.shape[0], : view.shape[1]]] = class_id
