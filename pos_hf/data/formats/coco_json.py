"""COCO's JSON as any tool writes it: one file a dataset or several, one a split."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.data.arguments import DataArguments
from pos_hf.data.drawing import Geometry, paint
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
from pos_hf.errors import InputError, first_sentence

KEYS = ("images", "annotations", "categories")


def looks_like(tree: Tree) -> bool:
    """Whether a JSON file has COCO's three lists."""
    return tree.json_holds(*KEYS) is not None


def read(args: DataArguments) -> Annotations:
    """All JSON files of the folder that have COCO's form; the words in a file's path say its split."""
    tree = Tree.of(Path(args.dataset))
    files = [name for name in tree.ending(".json") if tree.holds(name, *KEYS)]
    contents = {name: read_content(tree.root / name) for name in files}
    contents = {name: content for name, content in contents.items() if "info" in content or content["images"]}
    listed = images_by_name(tree.root)
    used = {label for content in contents.values() for label in _used_labels(content)}
    pictures, labels = [], []
    for name, content in contents.items():
        labels += [label for label in declared_labels(content, used) if label not in labels]
        path = tree.root / name
        part = path.stem.rpartition("_")[2]
        above = path.parent.parent
        folders = [path.parent, above / part, path.parent / "images", above / "images" / part]
        folders += [above / "images", tree.root]

        def find(file_name: str, path: Path = path, folders: list[Path] = folders) -> str:
            return find_image(folders, file_name, listed, path)

        pictures += pictures_of(content, name, find)
    return Annotations(pictures, labels)


def read_content(path: Path) -> dict[str, Any]:
    """A JSON file of COCO's form.

    Raises:
        InputError: It is missing or has another form.
    """
    if not path.is_file():
        raise InputError(f"the annotations {path} do not exist: unpack COCO's annotations_trainval2017 there")
    content = read_json(path)
    try:
        if not all(isinstance(content[key], list) for key in KEYS):
            raise TypeError("no lists")
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no annotations of COCO's form ({first_sentence(error)}): export it again"
        ) from error
    return content


def declared_labels(content: dict[str, Any], used: set[str]) -> list[str]:
    """The categories' names by id, without the name of the whole set that some tools put among them."""
    categories = sorted(content["categories"], key=lambda category: category["id"])
    groups = {c.get("supercategory") for c in categories if c.get("supercategory") != c["name"]}
    names = [str(category["name"]) for category in categories]
    return [name for name in names if name in used or name not in groups]


def _used_labels(content: dict[str, Any]) -> set[str]:
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    return {names.get(annotation.get("category_id"), "") for annotation in content["annotations"]}


def pictures_of(
    content: dict[str, Any], name: str, find: Callable[[str], str], small_last: bool = False
) -> list[Picture]:
    """The images of one file.

    Crowds lie below single objects; otherwise the order is the file's.

    Args:
        content: As read.
        name: The file's, for messages.
        find: The path of an image by its `file_name`.
        small_last: Small objects are drawn over large ones, as in the published benchmark.
    """
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    pictures = []
    for image in content["images"]:
        where = f"{name} ({image['file_name']})"
        with refused(where):
            size = (int(image["width"]), int(image["height"])) if "width" in image else None
            drawn = sorted(objects[image["id"]], key=lambda annotation: not annotation.get("iscrowd"))
            if small_last:
                drawn.sort(key=lambda annotation: -_area(annotation, size or (1, 1)))
            shapes = [Shape(names[a["category_id"]], _geometry(a, size)) for a in drawn]
        path = find(image["file_name"])
        pictures.append(Picture(path, shapes, where, size, split_of(os.path.splitext(name)[0])))
    return pictures


def _area(annotation: dict[str, Any], size: tuple[int, int]) -> float:
    if "area" in annotation:
        return annotation["area"]
    alone = np.zeros(size[::-1], np.uint8)
    paint(alone, 1, _geometry(annotation, size))
    return int(alone.sum())


def _geometry(annotation: dict[str, Any], size: tuple[int, int] | None) -> Geometry:
    outline = annotation.get("segmentation", [])
    if isinstance(outline, dict):  # run lengths down the columns, background first
        height, width = outline["size"]
        if size is not None and (width, height) != size:
            raise ValueError(f"it is made for {width} x {height} pixels, not {size[0]} x {size[1]}")
        return {"runs": outline["counts"], "box": [0, 0, width, height], "down": True}
    rings = [numbers(ring) for ring in outline]
    if len(rings) == 1:
        return {"rings": rings}
    return {"parts": rings}  # parts of one object, hidden in between: all are filled
