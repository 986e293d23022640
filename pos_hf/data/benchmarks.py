"""The published benchmarks: where their files are and what their ids mean, as options of the folder source.

COCO, whose masks are drawn, is loaded here."""

import dataclasses
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.files import read_picture
from pos_hf.data.folders import Pool, assemble, scored_pool
from pos_hf.data.formats import coco_json
from pos_hf.data.formats.base import refused, shapes_to_mask
from pos_hf.data.listing import list_images
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError

PASCAL_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
CITYSCAPES_CLASSES = [
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic_light",
    "traffic_sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
]
# the 19 scored classes among the dataset's own ids; every other id is ignored
CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
COCO_CLASSES = [
    "background", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
]  # fmt: skip
# masks of ADE20K that are looked at: nearly every one of the preprocessed shows the ignored 255
ADE20K_SAMPLE = 20


def pascal(args: DataArguments) -> DataArguments:
    """Pascal VOC 2012 as unpacked; with the SBD masks in SegmentationClassAug where that folder exists."""
    augmented = (Path(args.dataset) / "SegmentationClassAug").is_dir()
    return fill_in(
        args,
        images="JPEGImages",
        masks="SegmentationClassAug" if augmented else "SegmentationClass",
        labeled_ids="ImageSets/Segmentation/train.txt",
        test_images="JPEGImages",
        test_masks="SegmentationClass",
        test_ids="ImageSets/Segmentation/val.txt",
        class_names=PASCAL_CLASSES,
    )


def cityscapes(args: DataArguments) -> DataArguments:
    """Cityscapes as unpacked: `labelTrainIds` masks if made, else `labelIds` mapped to train ids."""
    folder = Path(args.dataset) / "gtFine" / "train"
    if next(folder.rglob("*_gtFine_labelTrainIds.png"), None) is not None:
        suffix, values = "_gtFine_labelTrainIds", None
    else:
        ignored = dict.fromkeys(range(256), 255)
        suffix = "_gtFine_labelIds"
        values = ignored | {old: new for new, old in enumerate(CITYSCAPES_IDS)}
    return fill_in(
        args,
        images="leftImg8bit/train",
        masks="gtFine/train",
        unlabeled="leftImg8bit/train_extra",
        test_images="leftImg8bit/val",
        test_masks="gtFine/val",
        image_suffix="_leftImg8bit",
        mask_suffix=suffix,
        mask_values=values,
        class_names=CITYSCAPES_CLASSES,
    )


def load_coco(args: DataArguments) -> tuple[SegmentationData, DataArguments]:
    """COCO 2017: 80 things and background (0).

    Masks are those in `masks/`, where UniMatch's authors hand out both splits' together, or in `masks/SPLIT`;
    a split without any is drawn from its annotations, small objects over large ones.

    Returns:
        The data, and the arguments that decode its masks.
    """
    root = Path(args.dataset)
    annotations = root / "annotations" / "instances_val2017.json"
    names = args.class_names
    if names is None:
        names = ["background", *_coco_labels(annotations)] if annotations.is_file() else COCO_CLASSES
    args = fill_in(
        args, images="train2017", unlabeled="unlabeled2017", test_images="val2017", class_names=names
    )
    train = _coco_pool(root, args.images, args)
    pools = {
        "train": train,
        "selection": scored_pool(args, "selection", train),
        "test": _coco_pool(root, args.test_images, args) if (root / args.test_images).is_dir() else None,
    }
    return assemble(args, pools, read_id2label(args)), args


def _coco_pool(root: Path, split: str, args: DataArguments) -> Pool:
    images = list_images(root / split) if (root / split).is_dir() else {}
    first = next(iter(images), None)
    folder = root / "masks" / split
    if not folder.is_dir() and (root / "masks" / f"{first}.png").is_file():
        folder = root / "masks"
    if folder.is_dir():
        return Pool(images, list_images(folder))
    path = root / "annotations" / f"instances_{split}.json"
    content = coco_json.read_content(path)
    ids = {label: id for id, label in enumerate(read_id2label(args).values())}

    def find(file_name: str) -> str:
        return str(root / split / file_name)

    masks = {}
    for picture in coco_json.pictures_of(content, f"annotations/{path.name}", find, small_last=True):
        with refused(picture.where):
            id = os.path.splitext(os.path.relpath(picture.image, root / split))[0]
            masks[id] = shapes_to_mask(picture, ids, 0)
    return Pool(list_images(root / split), masks)


def _coco_labels(annotations: Path) -> list[str]:
    categories = coco_json.read_content(annotations)["categories"]
    return [category["name"] for category in sorted(categories, key=lambda category: category["id"])]


def ade20k(args: DataArguments) -> DataArguments:
    """ADEChallengeData2016 as unpacked, whose masks count 150 classes from 1 and ignore 0, or with the masks
    of UniMatch V2's authors, which count from 0 and ignore 255."""
    names = Path(args.dataset) / "objectInfo150.txt"
    if args.class_names is None and not names.is_file():
        raise InputError(f"{names} does not exist: unpack all of ADEChallengeData2016, or list `class_names`")
    return fill_in(
        args,
        images="images/training",
        masks="annotations/training",
        test_images="images/validation",
        test_masks="annotations/validation",
        reduce_labels=not _is_preprocessed(Path(args.dataset) / "annotations" / "validation"),
        class_names=args.class_names
        or [line.split("\t")[-1].split(",")[0].strip() for line in names.read_text().splitlines()[1:]],
    )


def _is_preprocessed(folder: Path) -> bool:
    """Whether ADE20K's masks hold 255, which the published ones, of 0 to 150, never do."""
    masks = islice(sorted(folder.glob("*.png")), ADE20K_SAMPLE)
    return any(255 in np.asarray(read_picture({"path": str(mask), "bytes": None})) for mask in masks)


BENCHMARKS = {"pascal": pascal, "cityscapes": cityscapes, "ade20k": ade20k}
"""By the name that `dataset_format` gives them; COCO, which is drawn, is loaded by `load_coco`."""


def fill_in(args: DataArguments, **layout: Any) -> DataArguments:
    """Set the options that were left at their defaults."""
    defaults = DataArguments()
    return dataclasses.replace(
        args, **{key: value for key, value in layout.items() if getattr(args, key) == getattr(defaults, key)}
    )
