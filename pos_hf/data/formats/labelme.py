"""LabelMe: a JSON file beside each image, or with the image inside."""

import os
from pathlib import Path
from typing import Any

from pos_hf.data.arguments import DataArguments
from pos_hf.data.drawing import Geometry
from pos_hf.data.formats.base import (
    Annotations,
    Picture,
    Shape,
    find_image,
    images_by_name,
    numbers,
    read_json,
    refused,
    split_of,
)
from pos_hf.data.listing import Tree

# LabelMe's own export draws lines and points with these
LINE_WIDTH, POINT_RADIUS = 10, 5


def looks_like(tree: Tree) -> bool:
    """Whether a JSON file speaks of one image and its shapes."""
    return tree.json_holds("imagePath", "shapes") is not None


def read(args: DataArguments) -> Annotations:
    """Every JSON file of the folder that has `shapes`; the image is `imagePath`, else what the file holds."""
    tree = Tree.of(Path(args.dataset))
    listed = images_by_name(tree.root)
    pictures = []
    for name in tree.ending(".json"):
        path = tree.root / name
        content = read_json(path)
        if isinstance(content, dict) and "shapes" in content and "imagePath" in content:
            with refused(name):
                pictures.append(_picture(path, name, content, listed))
    return Annotations(pictures)


def _picture(path: Path, name: str, content: dict[str, Any], listed: dict[str, list[str]]) -> Picture:
    has_size = content.get("imageWidth") and content.get("imageHeight")
    named = content["imagePath"].replace("\\", "/")
    is_inside = content.get("imageData") and os.path.basename(named).lower() not in listed
    image = str(path) if is_inside else find_image([path.parent], named, listed, path)
    return Picture(
        image,
        [Shape(str(shape["label"]), _geometry(shape)) for shape in content["shapes"]],
        name,
        (int(content["imageWidth"]), int(content["imageHeight"])) if has_size else None,
        split_of(name),
    )


def _geometry(shape: dict[str, Any]) -> Geometry:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    flat = numbers(points)
    if kind == "rectangle":
        columns, rows = flat[::2], flat[1::2]
        left, right, top, bottom = min(columns), max(columns), min(rows), max(rows)
        return {"rings": [[left, top, right, top, right, bottom, left, bottom]]}
    if kind == "circle":
        radius = ((flat[0] - flat[2]) ** 2 + (flat[1] - flat[3]) ** 2) ** 0.5
        return {"ellipse": [flat[0], flat[1], radius, radius, 0]}
    if kind in ("line", "linestrip"):
        return {"line": flat, "width": LINE_WIDTH}
    if kind in ("point", "points"):
        return {"ellipse": [flat[0], flat[1], POINT_RADIUS, POINT_RADIUS, 0]}
    if kind == "mask":
        return {"png": shape["mask"], "corner": flat[:2], "zipped": False}
    if kind == "polygon":
        return {"rings": [flat]}
    raise ValueError(f"the shape_type {kind!r} is unknown")
