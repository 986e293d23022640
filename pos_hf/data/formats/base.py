"""What every annotation format says, and the rules that turn shapes with labels into masks of class ids.

The rules, the same for all formats:
- shapes are drawn in the file's order, or by the format's own order of layers; the last one wins;
- what no shape covers is the class background, or ignored (`unnamed_area`);
- an image without any shape is unlabeled, or shows background alone (`unannotated_images`);
- a label without a class is an error, unless `merge_labels` gives it one or drops it.
"""

import dataclasses
import json
import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.drawing import Geometry, drawing
from pos_hf.data.files import Stored, read_text
from pos_hf.data.folders import Pool, assemble
from pos_hf.data.listing import LISTED_SUFFIXES, walk
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError, first_sentence
from pos_hf.values import IGNORE_INDEX

BACKGROUND = "background"
BACKGROUND_LABELS = ("background", "_background_")
IGNORED_LABELS = ("ignore", "__ignore__")

SPLIT_WORDS = {
    "selection": ("val", "valid", "validation", "dev", "selection"),
    "test": ("test", "testing"),
    "train": ("train", "training"),
}


class Shape(NamedTuple):
    """One annotated object."""

    label: str
    geometry: Geometry


class Picture(NamedTuple):
    """One image that an annotation file speaks of."""

    image: str
    """Path of the image; of the annotation file where that holds the image itself."""
    shapes: Sequence[Shape]
    where: str
    """The annotation, for messages."""
    size: tuple[int, int] | None = None
    """Width and height; None takes the image's."""
    split: str = "train"
    relative: bool = False
    """Coordinates are shares of width and height."""


class Annotations(NamedTuple):
    """What a reader found."""

    pictures: list[Picture]
    labels: list[str] | None = None
    """Declared, in the order of class ids; None takes those that occur, sorted."""
    colors: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Of some labels."""
    said: tuple[str, ...] = ()
    """What the reader assumed, a sentence each."""


def split_of(path: str) -> str:
    """The role that the words in a path speak of: train, selection or test."""
    words = re.split(r"[^a-z]+", path.lower())
    for split, known in SPLIT_WORDS.items():
        if any(word in known for word in reversed(words)):
            return split
    return "train"


def read_json(path: Path) -> Any:
    """Read an annotation file.

    Raises:
        InputError: It is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON ({first_sentence(error)}): export it again") from error


@contextmanager
def refused(where: str) -> Iterator[None]:
    """Say in one sentence that an annotation has not the form of its format.

    Raises:
        InputError: In place of the errors that reading it leads to.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        what = f"{first_sentence(error)} is missing" if isinstance(error, KeyError) else first_sentence(error)
        raise InputError(f"{where}: an object cannot be drawn ({what}): correct or remove it") from error


def numbers(points: Any) -> list[float]:
    """Coordinates as one flat list: from [[x, y], ...] or [x, y, ...].

    Raises:
        ValueError: They are no pairs of finite numbers.
    """
    if not isinstance(points, list):
        raise ValueError(f"points are a list, not {reprlib.repr(points)}")
    flat = [number for point in points for number in (point if isinstance(point, list) else [point])]
    if len(flat) % 2 or not all(isinstance(n, int | float) and math.isfinite(n) for n in flat):
        raise ValueError("points are pairs of finite numbers")
    return flat


def passed_over(kinds: Sequence[str]) -> tuple[str, ...]:
    """The sentence about shapes that enclose no area, if there are any."""
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items()))
    return (f"annotations that enclose no area are passed over: {counts}",) if kinds else ()


def find_image(folders: Sequence[Path], named: str, listed: dict[str, list[str]], annotation: Path) -> str:
    """The image that an annotation names: in one of the folders, else the only one of its name.

    Args:
        folders: Where it may be, the likeliest first.
        named: As the annotation names it.
        listed: Paths of all images by lower-case file name.
        annotation: The file that names it.

    Raises:
        InputError: There is none, or more than one.
    """
    named = named.replace("\\", "/")
    found = listed.get(os.path.basename(named).lower(), [])
    for folder in folders:
        if (path := os.path.normpath(folder / named)) in found:
            return path
    if len(found) != 1:
        problem = "is not there: add it, or remove its annotation"
        if found:
            problem = f"may be {found[0]} or {found[1]}: write which in the annotation"
        raise InputError(f"the image {named!r}, which {annotation} names, {problem}")
    return found[0]


def images_by_name(root: Path) -> dict[str, list[str]]:
    """Normal paths of all images below a folder, by their names in small letters."""
    listed: dict[str, list[str]] = {}
    for parent, names in walk(root):
        for name in names:
            if os.path.splitext(name)[1].lower() in LISTED_SUFFIXES:
                listed.setdefault(name.lower(), []).append(os.path.normpath(os.path.join(parent, name)))
    return listed


def load_annotations(args: DataArguments, found: Annotations) -> SegmentationData:
    """Turn what a reader found into roles, by the rules above.

    Raises:
        InputError: A label has no class, there is nothing annotated, or two images have one id.
    """
    root = Path(args.dataset)
    found, said = _merged(found, args)
    names, ids = class_ids(found, args, root)
    said += _about_empty_shapes(found)
    fill = ids[BACKGROUND] if args.unnamed_area == BACKGROUND else IGNORE_INDEX
    images: dict[str, dict[str, str]] = {split: {} for split in SPLIT_WORDS}
    masks: dict[str, dict[str, str | Stored]] = {split: {} for split in SPLIT_WORDS}
    for picture in [*found.pictures, *_unmentioned(found.pictures, root, args)]:
        id = os.path.splitext(os.path.relpath(picture.image, root))[0].replace(os.sep, "/")
        known = images[picture.split]
        if id in known:
            raise InputError(f"{known[id]} and {picture.image} have one name: rename or remove one")
        known[id] = picture.image
        if picture.shapes or args.unannotated_images == "background":
            masks[picture.split][id] = shapes_to_mask(picture, ids, fill)
    if not masks["train"] and args.labeled_ids is None:
        raise InputError(f"{root} has no annotated image to train on: annotate some")
    said += _about_images_without({split: len(images[split]) - len(masks[split]) for split in images})
    args = dataclasses.replace(args, unannotated_images=args.unannotated_images or "unlabeled")
    pools = {split: Pool(images[split], masks[split]) for split in images if split == "train" or masks[split]}
    for split in ("selection", "test"):
        if getattr(args, f"{split}_ids") is not None:  # may list images that lie among those to train on
            pools[split] = Pool(images["train"] | images[split], masks["train"] | masks[split])
    colors = [list(found.colors[name]) for name in names if name in found.colors]
    palette = colors if len(colors) == len(names) else None
    data = assemble(args, pools, dict(enumerate(names)), palette)
    return dataclasses.replace(data, assumptions=(*found.said, *said))


def class_ids(found: Annotations, args: DataArguments, root: Path) -> tuple[list[str], dict[str, int]]:
    """The classes, and the class id of every label."""
    used = Counter(shape.label for picture in found.pictures for shape in picture.shapes)
    if args.class_names is not None or (root / args.id2label).is_file():
        names = list(read_id2label(args).values())
        if args.unnamed_area == BACKGROUND and not any(name in BACKGROUND_LABELS for name in names):
            raise InputError(
                f"the classes {', '.join(names)} lack `{BACKGROUND}` for the area that no shape covers: add "
                "it to the class names, or set `unnamed_area: ignore`"
            )
    else:
        names = sorted(used) if found.labels is None else list(dict.fromkeys(found.labels))
        names = [name for name in names if name not in (*BACKGROUND_LABELS, *IGNORED_LABELS)]
        has_background = args.unnamed_area == BACKGROUND or any(label in used for label in BACKGROUND_LABELS)
        names = [BACKGROUND, *names] if has_background else names
        names = list(read_id2label(_named(args, names)).values())  # checked
    ids = {name: id for id, name in enumerate(names)}
    background = next((ids[label] for label in BACKGROUND_LABELS if label in ids), None)
    for label in BACKGROUND_LABELS:
        ids.setdefault(label, IGNORE_INDEX if background is None else background)
    for label in IGNORED_LABELS:
        ids.setdefault(label, IGNORE_INDEX)
    if unknown := [label for label in used if label not in ids]:
        listed = ", ".join(f"{label!r} ({count})" for label, count in used.most_common(20))
        where = next(p.where for p in found.pictures if any(s.label == unknown[0] for s in p.shapes))
        raise InputError(
            f"{where} has the label {unknown[0]!r}, but the classes are {', '.join(names)}; the labels found "
            f"are {listed}: add it to the class names, or give it a class or null in `merge_labels`"
        )
    return names, ids


def _named(args: DataArguments, names: list[str]) -> DataArguments:
    named = DataArguments(dataset=args.dataset)
    named.class_names = names
    return named


def _merged(found: Annotations, args: DataArguments) -> tuple[Annotations, list[str]]:
    """Labels as `merge_labels` says; those that become null are not drawn."""
    said = []
    if found.labels is not None:
        twice = [label for label, count in Counter(found.labels).items() if count > 1]
        said += [f"the class {label!r} is listed twice: both are one class" for label in twice]
    assert not isinstance(args.merge_labels, str)  # parsed on construction
    merge = args.merge_labels or {}

    def merged(label: str) -> str | None:
        return merge.get(label, label)

    pictures = [
        picture._replace(
            shapes=[
                Shape(new, geometry) for old, geometry in picture.shapes if (new := merged(old)) is not None
            ]
        )
        for picture in found.pictures
    ]
    labels = (
        None if found.labels is None else [new for old in found.labels if (new := merged(old)) is not None]
    )
    return found._replace(pictures=pictures, labels=labels), said


def shapes_to_mask(picture: Picture, ids: Mapping[str, int], fill: int) -> Stored:
    """Store the mask of an image.

    Args:
        picture: With its shapes.
        ids: Class id of every label.
        fill: Class id of the area that no shape covers.
    """
    return drawing(
        picture.where,
        [(ids[shape.label], shape.geometry) for shape in picture.shapes],
        fill,
        picture.size,
        picture.image,
        picture.relative,
    )


def _unmentioned(pictures: list[Picture], root: Path, args: DataArguments) -> list[Picture]:
    """Images beside the annotated ones that no annotation mentions."""
    mentioned = {picture.image for picture in pictures}
    splits = {os.path.dirname(picture.image): picture.split for picture in reversed(pictures)}
    extra = os.path.normpath(root / args.unlabeled)
    return [
        Picture(path, [], path, split=splits[os.path.dirname(path)])
        for paths in images_by_name(root).values()
        for path in paths
        if path not in mentioned and os.path.dirname(path) in splits and not Path(path).is_relative_to(extra)
    ]


def _is_empty(geometry: Geometry) -> bool:
    rings = geometry.get("rings", geometry.get("parts"))
    return rings is not None and all(len(ring) < 6 for ring in rings)


def _about_empty_shapes(found: Annotations) -> list[str]:
    empty = [p.where for p in found.pictures for shape in p.shapes if _is_empty(shape.geometry)]
    if not empty:
        return []
    if len(empty) == sum(len(picture.shapes) for picture in found.pictures):
        raise InputError(
            f"{empty[0]} and the others have boxes or points alone, no outline: export the annotations as "
            "polygons or masks"
        )
    return [
        f"{len(empty)} outlines of fewer than three points enclose nothing and are passed over, the first in "
        f"{empty[0]}: redraw or remove them"
    ]


def _about_images_without(without: Mapping[str, int]) -> list[str]:
    return [
        f"{count} {split} images without annotations are {'unlabeled' if split == 'train' else 'left out'} "
        "(`unannotated_images: background` if they show background alone)"
        for split, count in without.items()
        if count
    ]
