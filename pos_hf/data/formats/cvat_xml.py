"""CVAT's XML 1.1 for images: polygons, boxes, ellipses and masks, with a z-order."""

import math
from pathlib import Path
from xml.etree import ElementTree

from pos_hf.data.arguments import DataArguments
from pos_hf.data.drawing import Geometry
from pos_hf.data.formats.base import (
    Annotations,
    Picture,
    Shape,
    find_image,
    images_by_name,
    passed_over,
    refused,
    split_of,
)
from pos_hf.data.listing import Tree
from pos_hf.errors import InputError, first_sentence

NO_AREA = ("points", "polyline", "cuboid", "skeleton")
HEAD = 4096  # bytes in which the outermost element begins


def looks_like(tree: Tree) -> bool:
    """Whether an XML file's outermost element is CVAT's."""
    return bool(_files(tree))


def _files(tree: Tree) -> list[str]:
    def is_cvat(name: str) -> bool:
        with (tree.root / name).open("rb") as file:
            head = file.read(HEAD)
        return b"<annotations>" in head and b"<version>" in head

    # Pascal VOC has an XML file an image, of another form
    return [name for name in tree.ending(".xml") if (tree.root / name).is_file() and is_cvat(name)]


def read(args: DataArguments) -> Annotations:
    """All files of the folder that have CVAT's form; an image's `subset`, or its path, says its split."""
    tree = Tree.of(Path(args.dataset))
    listed = images_by_name(tree.root)
    pictures, labels, skipped = [], [], []
    colors: dict[str, tuple[int, ...]] = {}
    for name in _files(tree):
        path = tree.root / name
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise InputError(f"{path} is no valid XML ({first_sentence(error)}): export it again") from error
        if root.find("track") is not None:
            raise InputError(f"{path} is CVAT for video: export it as CVAT for images 1.1")
        for label in root.iterfind("meta//labels/label"):
            labels.append(label.findtext("name", ""))
            with refused(name):
                value = label.findtext("color", "").lstrip("#")
                colors |= {labels[-1]: tuple(bytes.fromhex(value))} if len(value) == 6 else {}
        for image in root.iterfind("image"):
            where = f"{name} ({image.get('name')})"
            with refused(where):
                drawn = sorted(
                    (child for child in image if child.get("label") and child.tag not in (*NO_AREA, "tag")),
                    key=lambda child: int(child.get("z_order", 0)),
                )
                shapes = [Shape(child.attrib["label"], _geometry(child)) for child in drawn]
                size = int(image.attrib["width"]), int(image.attrib["height"])
                named = image.attrib["name"]
            skipped += [child.tag for child in image if child.tag in NO_AREA]
            found = find_image([path.parent / "images", path.parent, tree.root], named, listed, path)
            pictures.append(Picture(found, shapes, where, size, split_of(image.get("subset") or named)))
    return Annotations(pictures, labels or None, colors, passed_over(skipped))


def _geometry(shape: ElementTree.Element) -> Geometry:
    values = shape.attrib
    if shape.tag == "polygon":
        return {"rings": [[float(number) for number in values["points"].replace(";", ",").split(",")]]}
    if shape.tag == "box":
        left, top, right, bottom = (float(values[edge]) for edge in ("xtl", "ytl", "xbr", "ybr"))
        return {"rings": [rectangle(left, top, right, bottom, float(values.get("rotation", 0)))]}
    if shape.tag == "ellipse":
        numbers = [float(values[name]) for name in ("cx", "cy", "rx", "ry")]
        return {"ellipse": [*numbers, float(values.get("rotation", 0))]}
    if shape.tag == "mask":  # run lengths along the rows of the box, background first
        box = [int(values[name]) for name in ("left", "top", "width", "height")]
        return {"runs": [int(run) for run in values["rle"].split(",")], "box": box, "down": False}
    raise ValueError(f"a {shape.tag} is unknown")


def rectangle(
    left: float,
    top: float,
    right: float,
    bottom: float,
    degrees: float,
    about: tuple[float, float] | None = None,
) -> list[float]:
    """The corners of a turned rectangle, x and y by turns.

    Args:
        left, top, right, bottom: In pixels, before it is turned.
        degrees: Clockwise.
        about: The point that stays; None takes the centre.
    """
    x, y = about or ((left + right) / 2, (top + bottom) / 2)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    turned = (
        (x + (across - x) * cosine - (down - y) * sine, y + (across - x) * sine + (down - y) * cosine)
        for across, down in corners
    )
    return [number for corner in turned for number in corner]
