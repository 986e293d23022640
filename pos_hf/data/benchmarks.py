"""The published benchmarks as options of the folder source: where their files are and what their ids mean."""

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.data.arguments import DataArguments
from pos_hf.data.coco import coco_classes, draw_coco_masks
from pos_hf.data.decoding import read_picture
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
    """COCO 2017: 80 things and background (0).

    Masks are those in `masks/`, where UniMatch's authors hand out both splits' together, or in `masks/SPLIT`,
    where they are drawn from the annotations of a split that has none.
    """
    root = Path(args.dataset)
    folders = {split: _coco_masks(root, split) for split in ("train2017", "val2017")}
    for split, folder in folders.items():
        if not (root / folder).is_dir():
            draw_coco_masks(root / "annotations" / f"instances_{split}.json", root / folder)
    annotations = root / "annotations" / "instances_val2017.json"
    names = args.class_names
    if names is None:
        names = coco_classes(annotations) if annotations.is_file() else COCO_CLASSES
    return _fill_in(
        args,
        images="train2017",
        masks=folders["train2017"],
        unlabeled="unlabeled2017",
        test_images="val2017",
        test_masks=folders["val2017"],
        class_names=names,
    )


def _coco_masks(root: Path, split: str) -> str:
    """Where a split's masks are, or are to be drawn."""
    image = next((root / split).glob("*.jpg"), None)
    is_flat = image is not None and (root / "masks" / f"{image.stem}.png").is_file()
    return "masks" if is_flat and not (root / "masks" / split).is_dir() else f"masks/{split}"


def ade20k(args: DataArguments) -> DataArguments:
    """ADEChallengeData2016 as unpacked, whose masks count 150 classes from 1 and ignore 0, or with the masks
    of UniMatch V2's authors, which count from 0 and ignore 255."""
    names = Path(args.dataset) / "objectInfo150.txt"
    if args.class_names is None and not names.is_file():
        raise InputError(f"{names} does not exist: unpack all of ADEChallengeData2016, or list `class_names`")
    return _fill_in(
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


BENCHMARKS = {"pascal": pascal, "cityscapes": cityscapes, "coco": coco, "ade20k": ade20k}


def _fill_in(args: DataArguments, **layout: Any) -> DataArguments:
    """Set the options that were left at their defaults."""
    defaults = DataArguments()
    return dataclasses.replace(
        args, **{key: value for key, value in layout.items() if getattr(args, key) == getattr(defaults, key)}
    )
