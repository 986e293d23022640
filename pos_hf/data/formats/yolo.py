"""YOLO's segmentation labels: data.yaml, and a text file of outlines beside each image or in labels/."""

import os
from pathlib import Path
from typing import Any

import yaml

from pos_hf.data.arguments import DataArguments
from pos_hf.data.drawing import Geometry
from pos_hf.data.files import read_text
from pos_hf.data.formats.base import Annotations, Picture, Shape, images_by_name, split_of
from pos_hf.data.listing import Tree
from pos_hf.errors import InputError, first_sentence


def looks_like(tree: Tree) -> bool:
    """Whether a YAML file names classes and there are label files."""
    return _description(tree) is not None and any(
        "labels" in name.split("/") or tree.has_image_beside(name) for name in tree.ending(".txt")
    )


def _description(tree: Tree) -> str | None:
    for name in tree.ending(".yaml", ".yml"):
        content = _parsed(tree.root / name)
        if isinstance(content, dict) and "names" in content and {"train", "val", "path"} & content.keys():
            return name
    return None


def _parsed(path: Path) -> Any:
    try:
        return yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def read(args: DataArguments) -> Annotations:
    """Every image of the folder with its label file; the words in a path say its split."""
    tree = Tree.of(Path(args.dataset))
    description = _description(tree)
    if description is None:
        raise InputError(f"{tree.root} has no data.yaml with the classes' `names`: copy it there")
    given = _parsed(tree.root / description)["names"]
    names = {
        int(id): str(label)
        for id, label in (given if isinstance(given, dict) else dict(enumerate(given))).items()
    }
    labels = {name for name in tree.ending(".txt")}
    pictures = []
    for path in sorted(path for paths in images_by_name(tree.root).values() for path in paths):
        inside = os.path.relpath(path, tree.root).replace(os.sep, "/")
        file = _label_file(inside, labels)
        shapes = [] if file is None else _shapes(tree.root / file, names)
        where = file or inside
        pictures.append(Picture(path, shapes, where, split=split_of(os.path.dirname(inside)), relative=True))
    return Annotations(pictures, [names[id] for id in sorted(names)])


def _label_file(image: str, labels: set[str]) -> str | None:
    """`images/train/a.jpg` -> `labels/train/a.txt`, or the text file beside the image."""
    stem = os.path.splitext(image)[0]
    head, found, tail = f"/{stem}".rpartition("/images/")
    candidates = [f"{head}/labels/{tail}.txt".lstrip("/")] if found else []
    return next((name for name in [*candidates, f"{stem}.txt"] if name in labels), None)


def _shapes(file: Path, names: dict[int, str]) -> list[Shape]:
    shapes = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            id, flat = int(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise InputError(
                f"{file}, line {number}, is not `class x y x y ...` ({first_sentence(error)}): correct it"
            ) from error
        if id not in names:
            raise InputError(
                f"{file}, line {number}, has the class {id}, but data.yaml names {sorted(names)}: correct "
                "one of them"
            )
        if len(flat) == 4:
            raise InputError(f"{file}, line {number}, is a box, not an outline: export segmentation labels")
        if len(flat) % 2:
            raise InputError(f"{file}, line {number}, has a number too many for pairs x y: correct it")
        geometry: Geometry = {"rings": [flat]}
        shapes.append(Shape(names[id], geometry))
    return shapes
