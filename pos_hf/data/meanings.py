"""What the values or colours of masks mean where no config says it: by a file of classes, or a sample."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import FOREGROUND_NAMES
from pos_hf.data.files import pages_of, read_text
from pos_hf.data.folders import training_masks
from pos_hf.data.listing import Tree
from pos_hf.data.masks import mask_values
from pos_hf.errors import InputError, first_sentence

SAMPLE = 60  # masks that are looked at where nothing names the classes
MAX_CLASSES = 64  # more values or colours are no classes

Meaning = tuple[dict[str, Any], list[str]]
"""Options of `DataArguments`, and what was assumed."""


def find_meaning(tree: Tree, args: DataArguments) -> Meaning:
    """Find the class names, and the values or colours that stand for them.

    Args:
        tree: All files.
        args: With the layout filled in.

    Raises:
        InputError: A file of classes cannot be read.
    """
    if args.class_names is not None or (tree.root / args.id2label).is_file():
        return {}, []
    for name in tree.files:
        reader = READERS.get(name.rpartition("/")[2].lower())
        if reader is not None:
            try:
                options = reader(tree.root / name)
            except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                problem = f"{tree.root / name} is no list of classes ({first_sentence(error)}): correct it"
                raise InputError(problem) from error
            return options, [f"class names are those of {name}"]
    if args.fold_masks:
        return {"class_names": FOREGROUND_NAMES}, []
    return _from_sample(args)


def _from_sample(args: DataArguments) -> Meaning:
    try:
        masks = training_masks(args)
    except InputError:
        return {}, []  # the folder source says what is missing
    values: Counter[int] = Counter()
    colors: Counter[tuple[int, ...]] = Counter()
    for path in masks[:: -(-len(masks) // SAMPLE) or 1]:
        try:
            array = mask_values({"path": pages_of(path)[0], "bytes": None})
        except InputError:
            continue  # found by the checks
        if array.ndim == 2:
            values.update(np.unique(array).tolist())
        else:
            painted = np.unique(array[..., :3].reshape(-1, 3), axis=0)
            colors.update(map(tuple, painted[: MAX_CLASSES + 1].tolist()))
    if colors and not values:
        return _from_colors(sorted(colors))
    present = set(values) - ({255} if set(values) != {0, 255} else set())
    if not present or not all(float(value).is_integer() for value in present) or min(present) < 0:
        return {}, []
    return _from_values({int(value) for value in present}, args)


def _from_colors(colors: list[tuple[int, ...]]) -> Meaning:
    if len(colors) > MAX_CLASSES:
        return {"class_names": FOREGROUND_NAMES}, []
    listed = ["#{:02x}{:02x}{:02x}".format(*color) for color in colors]
    if listed == ["#000000", "#ffffff"]:
        names = FOREGROUND_NAMES
        return {"mask_colors": listed, "class_names": names}, [
            "masks are black and white: white is foreground"
        ]
    said = "masks are painted and nothing names their classes: they are named by their colours"
    return {"mask_colors": listed, "class_names": listed}, [said]


def _from_values(present: set[int], args: DataArguments) -> Meaning:
    if args.mask_threshold is not None:
        return {"class_names": FOREGROUND_NAMES}, []
    if present == {0, 255} and args.mask_values is None:
        return (
            {"mask_values": {"255": 1}, "class_names": FOREGROUND_NAMES},
            ["masks hold 0 and 255, and nothing names their classes: 255 is foreground"],
        )
    if len(present) > MAX_CLASSES or args.mask_values is not None:
        return {"class_names": FOREGROUND_NAMES}, []
    counts_from_one = 0 not in present and len(present) > 1 and args.reduce_labels is None
    highest = max(present) - counts_from_one
    is_binary = highest == 1
    names = FOREGROUND_NAMES if is_binary else [f"class {id}" for id in range(max(highest, 1) + 1)]
    options: dict[str, Any] = {"class_names": names}
    said = f"nothing names the classes: the values {sorted(present)} of masks are called {', '.join(names)}"
    return options | ({"reduce_labels": True} if counts_from_one else {}), [said]


def _roboflow(path: Path) -> dict[str, Any]:
    """`Pixel Value, Class` lines; Roboflow's semantic masks."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(path).splitlines()) if row]
    names = {int(row[0]): row[1] for row in rows[1:]}
    return {"class_names": [names.get(id, f"class {id}") for id in range(max(names) + 1)]}


def _cvat(path: Path) -> dict[str, Any]:
    """`name:r,g,b:parts:actions` lines; CVAT's segmentation masks."""
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    entries = [line.split(":") for line in lines]
    colors = ["#{:02x}{:02x}{:02x}".format(*map(int, entry[1].split(","))) for entry in entries]
    order = sorted(range(len(entries)), key=lambda index: colors[index] != "#000000")
    return {
        "class_names": [entries[index][0] for index in order],
        "mask_colors": [colors[index] for index in order],
    }


def _names(path: Path) -> dict[str, Any]:
    """A name a line; LabelMe's export begins with `__ignore__`, which has no id."""
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return {"class_names": [name.strip("_") for name in names if name != "__ignore__"]}


def _named_colors(path: Path) -> dict[str, Any]:
    """`name,r,g,b` lines below a head."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(path).splitlines()) if row]
    colors = ["#{:02x}{:02x}{:02x}".format(*map(int, row[1:4])) for row in rows[1:]]
    return {"class_names": [row[0] for row in rows[1:]], "mask_colors": colors}


def _json(path: Path) -> dict[str, Any]:
    """A list of names, names by id, or `{"classes": [{"title" or "name", "color"}]}`."""
    content = json.loads(read_text(path))
    classes = content.get("classes", content) if isinstance(content, dict) else content
    if isinstance(classes, dict):
        classes = [classes[key] for key in sorted(classes, key=int)]
    if all(isinstance(entry, str) for entry in classes):
        return {"class_names": classes}
    options: dict[str, Any] = {"class_names": [entry.get("title") or entry["name"] for entry in classes]}
    if all("color" in entry for entry in classes):
        options["mask_colors"] = [entry["color"].lower() for entry in classes]
    return options


READERS = {
    "_classes.csv": _roboflow,
    "labelmap.txt": _cvat,
    "class_names.txt": _names,
    "classes.txt": _names,
    "class_dict.csv": _named_colors,
    "classes.json": _json,
    "id2label.json": _json,
}
"""By file name, in small letters."""
