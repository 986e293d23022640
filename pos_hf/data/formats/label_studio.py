"""Label Studio's JSON: tasks with polygons, rectangles and ellipses in percent, and brush strokes."""

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pos_hf.data.arguments import DataArguments
from pos_hf.data.drawing import Geometry
from pos_hf.data.formats.base import (
    Annotations,
    Picture,
    Shape,
    find_image,
    images_by_name,
    numbers,
    passed_over,
    read_json,
    refused,
    split_of,
)
from pos_hf.data.formats.cvat_xml import rectangle
from pos_hf.data.listing import LISTED_SUFFIXES, Tree
from pos_hf.errors import InputError

KEYS = ("annotations", "data", "from_name", "to_name")
LABELS = {
    "polygonlabels": "polygon",
    "rectanglelabels": "rectangle",
    "ellipselabels": "ellipse",
    "brushlabels": "brush",
}


def looks_like(tree: Tree) -> bool:
    """Whether a JSON file holds tasks with results."""
    return tree.json_holds(*KEYS) is not None


def read(args: DataArguments) -> Annotations:
    """All JSON exports of the folder; of a task's annotations the ground truth counts, else the first."""
    tree = Tree.of(Path(args.dataset))
    listed = images_by_name(tree.root)
    pictures, skipped, several = [], [], 0
    for name in tree.ending(".json"):
        if not tree.holds(name, *KEYS):
            continue
        path, tasks = tree.root / name, read_json(tree.root / name)
        if not isinstance(tasks, list):
            raise InputError(f"{path} is no list of tasks: export it from Label Studio as JSON")
        for task in tasks:
            with refused(name):
                named = _image_name(task)
                valid = [a for a in task["annotations"] if not a.get("was_cancelled")]
                valid.sort(key=lambda annotation: not annotation.get("ground_truth"))
                results = valid[0]["result"] if valid else []
                several += len(valid) > 1
            where = f"{name} ({named})"
            image = _find(path.parent, named, listed, path)
            with refused(where):
                labeled = [result for result in results if result.get("type") in LABELS]
                skipped += [str(r.get("type")) for r in results if str(r.get("type")).endswith("labels")]
                shapes = [shape for result in labeled for shape in _shapes(result)]
                sizes = [(r["original_width"], r["original_height"]) for r in labeled]
            size = (int(sizes[0][0]), int(sizes[0][1])) if sizes else None
            pictures.append(Picture(image, shapes, where, size, split_of(name)))
    said = [f"{several} tasks have several annotations, of which one counts"] if several else []
    return Annotations(pictures, said=(*said, *passed_over([kind for kind in skipped if kind not in LABELS])))


def _image_name(task: dict[str, Any]) -> str:
    for value in task["data"].values():
        text = unquote(str(value)).rpartition("?d=")[2]
        if Path(text).suffix.lower() in LISTED_SUFFIXES:
            return text
    raise ValueError("no image in the data of a task")


def _find(folder: Path, named: str, listed: dict[str, list[str]], path: Path) -> str:
    """Uploads get a prefix of eight hexadecimal digits, which the user's file has not."""
    base = Path(named).name
    if base.lower() not in listed:
        base = re.sub(r"^[0-9a-f]{8}-", "", base)
        return find_image([folder], base, listed, path)
    return find_image([folder / "images", folder], named, listed, path)


def _shapes(result: dict[str, Any]) -> list[Shape]:
    value, kind = result["value"], result["type"]
    across, down = result["original_width"] / 100, result["original_height"] / 100
    geometry: Geometry
    if kind == "polygonlabels":
        flat = numbers(value["points"])
        geometry = {
            "rings": [[number * (down if index % 2 else across) for index, number in enumerate(flat)]]
        }
    elif kind == "rectanglelabels":
        left, top = value["x"] * across, value["y"] * down
        right, bottom = left + value["width"] * across, top + value["height"] * down
        geometry = {"rings": [rectangle(left, top, right, bottom, value.get("rotation", 0), (left, top))]}
    elif kind == "ellipselabels":
        radii = value["radiusX"] * across, value["radiusY"] * down
        geometry = {"ellipse": [value["x"] * across, value["y"] * down, *radii, value.get("rotation", 0)]}
    else:
        size = [int(result["original_width"]), int(result["original_height"])]
        geometry = {"brush": base64.b64encode(bytes(value["rle"])).decode(), "size": size}
    return [Shape(str(label), geometry) for label in value[kind]]
