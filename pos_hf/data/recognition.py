"""What is in a folder: which format, which images and masks, which classes. A sample alone is decoded."""

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from pos_hf.data.arguments import DataArguments
from pos_hf.data.formats import FORMATS
from pos_hf.data.layouts import find_layout
from pos_hf.data.listing import ARCHIVES, IMAGE_SUFFIXES, Tree, has_place, is_folder
from pos_hf.data.meanings import find_meaning
from pos_hf.errors import InputError

LAYOUT = (
    "images",
    "masks",
    "image_suffix",
    "mask_suffix",
    "labeled_ids",
    "unlabeled_ids",
    "selection_images",
    "selection_masks",
    "selection_ids",
    "test_images",
    "test_masks",
    "test_ids",
)
"""Options that say where files are: with one of them set, a folder is laid out as they say."""
LISTS = {"labeled_ids", "unlabeled_ids", "selection_ids", "test_ids"}
"""Those that choose among images, wherever these are."""


class Recognised(NamedTuple):
    """How a folder is to be read."""

    options: dict[str, Any]
    """Of `DataArguments`, `dataset_format` among them."""
    said: list[str]
    """What was recognised and assumed, a sentence each."""


def resolve(args: DataArguments) -> tuple[DataArguments, list[str]]:
    """Arguments with `dataset_format: auto` replaced by what is in the folder.

    Returns:
        The arguments, options that were set as they were, and what was recognised and assumed.

    Raises:
        InputError: The folder is not understood.
    """
    if Path(args.dataset).is_file() and args.dataset.lower().endswith(ARCHIVES):
        args = dataclasses.replace(args, dataset=f"{args.dataset}!")  # all that is in it
    root = Path(args.dataset)
    if args.dataset_format != "auto":
        return args, []
    if args.dataset == "shapes" or not is_folder(root):
        # a Hub id has one slash; a folder that is not there gets the folder source's sentence
        return dataclasses.replace(args, dataset_format="folders"), []
    defaults, tree = DataArguments(), Tree.of(root)
    given = [name for name in LAYOUT if getattr(args, name) != getattr(defaults, name)]
    if given == ["masks"] and not has_place(root, args.masks):  # the name of a kind of folders
        options, said = find_layout(tree, args.masks)
        args = dataclasses.replace(args, masks=options.get("masks", args.masks))
        found = Recognised({"dataset_format": "folders", **options}, said)
    elif given and not (set(given) <= LISTS and not has_place(root, args.images)):
        found = Recognised({"dataset_format": "folders"}, [])
    else:
        found = recognise(tree)
    args = _filled(args, found.options)
    if args.dataset_format == "folders":
        options, said = find_meaning(tree, args)
        return _filled(args, options), [*found.said, *said]
    return args, found.said


def _filled(args: DataArguments, options: dict[str, Any]) -> DataArguments:
    """The arguments with options where they were left at their defaults."""
    defaults = DataArguments()
    left = {name: value for name, value in options.items() if getattr(args, name) == getattr(defaults, name)}
    return dataclasses.replace(args, **left)


def recognise(tree: Tree) -> Recognised:
    """Find the format of a folder.

    Raises:
        InputError: It has two formats, or none that is known.
    """
    if benchmark := _benchmark(tree):
        return Recognised({"dataset_format": benchmark}, [f"read as {benchmark}, as its site publishes it"])
    if tree.ending(".parquet") or {"dataset_dict.json", "state.json"} & set(tree.files):
        return Recognised({"dataset_format": "huggingface"}, ["read as a Hugging Face dataset"])
    found = [name for name, format in FORMATS.items() if not tree.is_packed and format.looks_like(tree)]
    if len(found) > 1:
        titles = " and ".join(FORMATS[name].title for name in found)
        raise InputError(
            f"{tree.root} holds annotations in {titles}: set `dataset_format: {found[0]}` or "
            f"`dataset_format: {found[1]}`"
        )
    if found:
        return Recognised(
            {"dataset_format": found[0]}, [f"annotations are read as {FORMATS[found[0]].title}"]
        )
    options, said = find_layout(tree)
    has_pairs = options or is_folder(tree.root / "images")
    if not has_pairs:
        raise _not_understood(tree)
    return Recognised({"dataset_format": "folders", **options}, said)


def _not_understood(tree: Tree) -> InputError:
    images = [name for name in tree.ending(*IMAGE_SUFFIXES)]
    kinds = Counter(os.path.splitext(name)[1].lower() for name in tree.files)
    seen = ", ".join(f"{count} {suffix or 'other'}" for suffix, count in kinds.most_common(4)) or "nothing"
    if not images:
        return InputError(f"{tree.root} holds no image ({seen}): give the folder of a dataset")
    return InputError(
        f"{tree.root} holds {len(images)} images like {images[0]}, but neither masks nor annotations that "
        f"are known ({seen}): name their folders in `images` and `masks`, or put them into images/ and masks/"
    )


def _benchmark(tree: Tree) -> str | None:
    files, root = set(tree.files), tree.root
    lists = {f"ImageSets/Segmentation/{split}.txt" for split in ("train", "val")}
    if lists <= files and "labelmap.txt" not in files and "class_names.txt" not in files:
        masks = (name for name in tree.files if name.startswith("SegmentationClass/"))
        if re.fullmatch(r"\d{4}_\d{6}\.png", os.path.basename(next(masks, ""))):
            return "pascal"
    if (root / "leftImg8bit" / "train").is_dir() and (root / "gtFine" / "train").is_dir():
        return "cityscapes"
    if (root / "train2017").is_dir() and (
        "annotations/instances_train2017.json" in files or (root / "masks").is_dir()
    ):
        return "coco"
    if "objectInfo150.txt" in files and (root / "annotations" / "training").is_dir():
        return "ade20k"
    return None
