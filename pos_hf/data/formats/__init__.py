"""Annotation formats, one file a format: recognised, read, and drawn by the rules in base.py."""

from collections.abc import Callable
from typing import NamedTuple

from pos_hf.data.arguments import DataArguments
from pos_hf.data.formats import coco_json, cvat_xml, label_studio, labelme, supervisely, yolo
from pos_hf.data.formats.base import Annotations
from pos_hf.data.listing import Tree


class Format(NamedTuple):
    """How one tool writes annotations."""

    title: str
    looks_like: Callable[[Tree], bool]
    read: Callable[[DataArguments], Annotations]


FORMATS = {
    "coco_json": Format("COCO JSON", coco_json.looks_like, coco_json.read),
    "cvat_xml": Format("CVAT XML", cvat_xml.looks_like, cvat_xml.read),
    "label_studio": Format("Label Studio JSON", label_studio.looks_like, label_studio.read),
    "labelme": Format("LabelMe JSON", labelme.looks_like, labelme.read),
    "supervisely": Format("Supervisely JSON", supervisely.looks_like, supervisely.read),
    "yolo": Format("YOLO segmentation labels", yolo.looks_like, yolo.read),
}
"""By the name that `dataset_format` gives them."""
