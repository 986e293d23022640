"""The one way into the data: options in, checked roles out. Each source is in its own file."""

import dataclasses
from pathlib import Path

from pos_hf.data.arguments import DataArguments, differing_options
from pos_hf.data.benchmarks import BENCHMARKS, load_coco
from pos_hf.data.class_names import merge_classes
from pos_hf.data.colours import class_palette
from pos_hf.data.decoding import RowDecoder
from pos_hf.data.files import pass_on_exhaustion
from pos_hf.data.folders import load_folders, require_folder
from pos_hf.data.formats import FORMATS
from pos_hf.data.formats.base import load_annotations
from pos_hf.data.hub import load_huggingface
from pos_hf.data.image_cache import require_room
from pos_hf.data.recognition import LAYOUT, LISTS, resolve
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.data.shapes import load_shapes
from pos_hf.data.splits import assign_roles, choose_listed
from pos_hf.data.validation import validate
from pos_hf.errors import InputError, first_sentence

FILES = {*LAYOUT, "fold_masks"} - LISTS - {"image_suffix"}
ROWS = {f"{column}_column" for column in ("image", "mask", "id")}
ROWS |= {f"{role}_split" for role in ("labeled", "unlabeled", "selection", "test")}
UNREAD = {
    "shapes": FILES | LISTS | ROWS | {"class_names", "mask_values"},
    "huggingface": FILES | {"unlabeled", "image_suffix", "unannotated_images", "unnamed_area"},
    "folders": ROWS | {"unnamed_area"},
    **dict.fromkeys(["coco", *BENCHMARKS], ROWS | {"unnamed_area"}),
    **dict.fromkeys(FORMATS, FILES | ROWS),
}
"""Options that a kind of data does not read."""


def load_data(args: DataArguments, needs_unlabeled: bool = True) -> SegmentationData:
    """Load a dataset, assign its roles and validate it.

    Args:
        args: The dataset.
        needs_unlabeled: Without unlabeled images it is refused.

    Raises:
        InputError: The data cannot be trained on as it is.
    """
    data = load_roles(args, needs_unlabeled)
    if args.image_cache:
        kept = require_room(data, Path(args.image_cache))
        data = dataclasses.replace(data, assumptions=(*data.assumptions, kept))
    validate(data, skip_unreadable=args.on_bad_sample == "skip")
    return data


def load_roles(args: DataArguments, needs_unlabeled: bool = True) -> SegmentationData:
    """Load a dataset and assign its roles; whether its files can be used is not looked at."""
    try:
        args, assumptions = resolve(args)
        _refuse_unread(args)
        data = assign_roles(_load(args), args, needs_unlabeled)
        return dataclasses.replace(data, assumptions=(*assumptions, *data.assumptions))
    except OSError as error:  # permissions, names too long for the file system, links to nowhere
        pass_on_exhaustion(error)
        raise InputError(f"the dataset {args.dataset} cannot be read: {first_sentence(error)}") from error


def _refuse_unread(args: DataArguments) -> None:
    kind = "shapes" if args.dataset == "shapes" else args.dataset_format
    if unread := [name for name in differing_options(args) if name in UNREAD.get(kind, ())]:
        raise InputError(f"{unread[0]} says nothing of {args.dataset}, which is read as {kind}: leave it out")


def _load(args: DataArguments) -> SegmentationData:
    if args.dataset == "shapes":
        return load_shapes(args)
    if args.dataset_format == "coco":
        data, args = load_coco(args)
    elif args.dataset_format in BENCHMARKS:
        args = BENCHMARKS[args.dataset_format](args)
        data = load_folders(args)
    elif args.dataset_format in FORMATS:
        require_folder(Path(args.dataset))
        data = load_annotations(args, FORMATS[args.dataset_format].read(args))
    elif args.dataset_format == "huggingface":
        data = choose_listed(load_huggingface(args), args)
    elif args.dataset_format == "folders":
        data = load_folders(args)
    else:
        known = ", ".join(["auto", "folders", "huggingface", *FORMATS, "coco", *BENCHMARKS])
        raise InputError(f"dataset_format {args.dataset_format!r} is unknown: use one of {known}")
    return _with_decoder(data, args)


def _with_decoder(data: SegmentationData, args: DataArguments) -> SegmentationData:
    decoder = RowDecoder.from_arguments(args)
    if (
        args.merge_labels and args.dataset_format not in FORMATS
    ):  # whose labels are merged before they are drawn
        assert not isinstance(args.merge_labels, str)  # parsed on construction
        id2label, merged = merge_classes(data.id2label, args.merge_labels)
        decoder = dataclasses.replace(decoder, merged=merged)
        data = dataclasses.replace(data, id2label=id2label, palette=class_palette(id2label))
    decoder = dataclasses.replace(decoder, num_classes=data.num_classes)
    return dataclasses.replace(
        data,
        labeled=data.labeled.with_transform(decoder),
        unlabeled=data.unlabeled.with_transform(decoder),
        selection=data.selection and data.selection.with_transform(decoder),
        test=data.test and data.test.with_transform(decoder),
    )
