"""The published benchmarks as options of the folder source: where their files are and what their ids mean."""

import dataclasses
from pathlib import Path
from typing import Any

from pos_hf.data.arguments import DataArguments
from pos_hf.data.coco import coco_classes, draw_coco_masks
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


def pascal(args: DataArguments) -> DataArguments:
    """Pascal VOC 2012 as unpacked; with the SBD masks in SegmentationClassAug where that folder exists."""
    augmented = (Path(args.dataset) / "SegmentationClassAug").is_dir()
    return _fill_in(
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
    return _fill_in(
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


def coco(args: DataArguments) -> DataArguments:
    """COCO 2017: 80 things and background (0); masks are drawn from the annotations where missing."""
    root = Path(args.dataset)
    for split in ("train2017", "val2017"):
        if not (root / "masks" / split).is_dir():
            draw_coco_masks(root / "annotations" / f"instances_{split}.json", root / "masks" / split)
    return _fill_in(
        args,
        images="train2017",
        masks="masks/train2017",
        unlabeled="unlabeled2017",
        test_images="val2017",
        test_masks="masks/val2017",
        class_names=args.class_names or coco_classes(root / "annotations" / "instances_val2017.json"),
    )


def ade20k(args: DataArguments) -> DataArguments:
    """ADEChallengeData2016 as unpacked: masks count 150 classes from 1, 0 is ignored."""
    names = Path(args.dataset) / "objectInfo150.txt"
    if args.class_names is None and not names.is_file():
        raise InputError(f"{names} does not exist: unpack all of ADEChallengeData2016, or list `class_names`")
    return _fill_in(
        args,
        images="images/training",
        masks="annotations/training",
        test_images="images/validation",
        test_masks="annotations/validation",
        reduce_labels=True,
        class_names=args.class_names
        or [line.split("\t")[-1].split(",")[0].strip() for line in names.read_text().splitlines()[1:]],
    )


BENCHMARKS = {"pascal": pascal, "cityscapes": cityscapes, "coco": coco, "ade20k": ade20k}


def _fill_in(args: DataArguments, **layout: Any) -> DataArguments:
    """Set the options that were left at their defaults."""
    defaults = DataArguments()
    return dataclasses.replace(
        args, **{key: value for key, value in layout.items() if getattr(args, key) == getattr(defaults, key)}
    )
