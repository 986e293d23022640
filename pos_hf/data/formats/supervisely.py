"""Supervisely's projects: meta.json, and ann/NAME.json beside img/NAME in every dataset of the project."""

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
    passed_over,
    read_json,
    refused,
    split_of,
)
from pos_hf.data.formats.cvat_xml import rectangle
from pos_hf.data.listing import LISTED_SUFFIXES, Tree

NO_AREA = ("point", "line", "graph", "cuboid")


def looks_like(tree: Tree) -> bool:
    """Whether there is a meta.json of classes and annotations in `ann` folders."""
    metas = [name for name in tree.files if name.rpartition("/")[2] == "meta.json"]
    return any(tree.holds(name, "classes", "title") for name in metas) and bool(_files(tree))


def _files(tree: Tree) -> list[str]:
    return [name for name in tree.ending(".json") if "ann" in name.split("/")[:-1]]


def read(args: DataArguments) -> Annotations:
    """Every annotation of the project; the dataset's name says its split."""
    tree = Tree.of(Path(args.dataset))
    listed = images_by_name(tree.root)
    labels = []
    colors: dict[str, tuple[int, ...]] = {}
    for meta in (name for name in tree.files if name.rpartition("/")[2] == "meta.json"):
        with refused(meta):
            for described in read_json(tree.root / meta)["classes"]:
                labels.append(str(described["title"]))
                value = str(described.get("color", "")).lstrip("#")
                colors |= {labels[-1]: tuple(bytes.fromhex(value))} if len(value) == 6 else {}
    pictures, skipped = [], []
    for name in _files(tree):
        path = tree.root / name
        content = read_json(path)
        with refused(name):
            drawn = [shape for shape in content["objects"] if shape["geometryType"] not in NO_AREA]
            skipped += [s["geometryType"] for s in content["objects"] if s["geometryType"] in NO_AREA]
            shapes = [Shape(str(shape["classTitle"]), _geometry(shape)) for shape in drawn]
            size = int(content["size"]["width"]), int(content["size"]["height"])
        image = _find(path, listed)
        pictures.append(Picture(image, shapes, name, size, split_of(str(Path(name).parent.parent))))
    return Annotations(pictures, labels, colors, passed_over(skipped))


def _find(path: Path, listed: dict[str, list[str]]) -> str:
    """`ann/a.jpg.json` is of `img/a.jpg`; old projects write `ann/a.json`."""
    folder, named = path.parent.parent / "img", path.stem
    if Path(named).suffix.lower() not in LISTED_SUFFIXES:
        known = {Path(p).name for paths in listed.values() for p in paths if Path(p).parent == folder}
        named = next((name for name in sorted(known) if Path(name).stem == named), f"{named}.jpg")
    return find_image([folder], named, listed, path)


def _geometry(shape: dict[str, Any]) -> Geometry:
    kind = shape["geometryType"]
    if kind == "bitmap":
        return {"png": shape["bitmap"]["data"], "corner": shape["bitmap"]["origin"], "zipped": True}
    outer = numbers(shape["points"]["exterior"])
    if kind == "rectangle":
        return {"rings": [rectangle(outer[0], outer[1], outer[2], outer[3], 0)]}
    if kind == "polygon":
        return {"rings": [outer, *(numbers(hole) for hole in shape["points"].get("interior", []))]}
    raise ValueError(f"the geometryType {kind!r} is unknown")
