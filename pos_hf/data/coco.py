"""Class-id masks from COCO's instance annotations. What COCO's folders mean is in benchmarks.py."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from pos_hf.errors import InputError


def coco_classes(annotations: Path) -> list[str]:
    """`background` and the names of the categories, by category id."""
    return ["background", *(category["name"] for category in _categories(_read(annotations)))]


def draw_coco_masks(annotations: Path, folder: Path) -> None:
    """Write one PNG of class ids an image: 0 background, then the categories numbered 1 to 80 without gaps.

    Small objects are drawn over large ones. Polygons are filled by Pillow, so that borders may differ from
    pycocotools' by a pixel.

    Args:
        annotations: An `instances_*.json` file.
        folder: Where the masks go; it appears only when all of them are drawn.

    Raises:
        InputError: The annotations are missing.
    """
    content = _read(annotations)
    class_of = {category["id"]: number for number, category in enumerate(_categories(content), start=1)}
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    unfinished = folder.with_name(folder.name + ".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    for image in tqdm(content["images"], desc=f"drawing {folder.name} masks", unit="mask"):
        mask = Image.new("L", (image["width"], image["height"]))
        for annotation in sorted(objects[image["id"]], key=lambda annotation: -annotation["area"]):
            _draw(mask, annotation["segmentation"], class_of[annotation["category_id"]])
        mask.save(unfinished / Path(image["file_name"]).with_suffix(".png").name)
    unfinished.rename(folder)


def _draw(mask: Image.Image, segmentation: Any, class_id: int) -> None:
    if isinstance(segmentation, dict):  # run lengths down the columns, background first (crowds)
        height, width = segmentation["size"]
        runs = segmentation["counts"]
        inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
        mask.paste(class_id, mask=Image.fromarray((inside * 255).astype(np.uint8)))
        return
    for polygon in segmentation:
        ImageDraw.Draw(mask).polygon(polygon, fill=class_id)


def _read(annotations: Path) -> dict[str, Any]:
    if not annotations.is_file():
        raise InputError(
            f"the annotations {annotations} do not exist: unpack COCO's annotations_trainval2017 there"
        )
    return json.loads(annotations.read_text())


def _categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(content["categories"], key=lambda category: category["id"])
