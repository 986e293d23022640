"""Class-id masks from COCO's instance annotations. What COCO's folders mean is in benchmarks.py."""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw
from tqdm import tqdm

from pos_hf.data.files import read_text
from pos_hf.errors import InputError, first_sentence


def coco_classes(annotations: Path) -> list[str]:
    """`background` and the names of the categories, by category id."""
    return ["background", *(category["name"] for category in _categories(_read(annotations, "categories")))]


def draw_coco_masks(annotations: Path, folder: Path) -> None:
    """Write one PNG of class ids an image: 0 background, then the categories numbered 1 to 80 without gaps.

    Small objects are drawn over large ones. Polygons are filled by Pillow, so that borders may differ from
    pycocotools' by a pixel. Of several processes one draws, and the others wait.

    Args:
        annotations: An `instances_*.json` file.
        folder: Where the masks go, in the images' subfolders; it appears only when all of them are drawn.

    Raises:
        InputError: The annotations are missing, or one of them cannot be drawn.
    """
    _require_file(annotations)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, unfinished = (folder.with_name(f"{folder.name}.{end}") for end in ("lock", "unfinished"))
    with FileLock(lock):
        try:
            if not folder.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
                _draw_all(annotations, unfinished)
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _draw_all(annotations: Path, folder: Path) -> None:
    content = _read(annotations, "images", "annotations", "categories")
    class_of = {category["id"]: number for number, category in enumerate(_categories(content), start=1)}
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for image in tqdm(content["images"], desc=f"drawing {folder.stem} masks", unit="mask"):
        path = _inside(folder, image["file_name"], annotations).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw_mask(image, objects[image["id"]], class_of, annotations).save(path)


def _inside(folder: Path, file_name: str, annotations: Path) -> Path:
    path = Path(os.path.normpath(folder / file_name))
    if not path.is_relative_to(folder) or path == folder:
        raise InputError(
            f"{annotations} names the image {file_name!r}, which lies outside its folder: correct it"
        )
    return path


def _draw_mask(
    image: dict[str, Any], objects: list[dict[str, Any]], class_of: dict[int, int], annotations: Path
) -> Image.Image:
    mask = Image.new("L", (image["width"], image["height"]))
    try:
        for annotation in sorted(objects, key=lambda annotation: -_area(annotation, mask.size)):
            _draw(mask, annotation["segmentation"], class_of[annotation["category_id"]])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{annotations}: an object of {image['file_name']} cannot be drawn ({first_sentence(error)}): "
            "correct or remove it"
        ) from error
    return mask


def _area(annotation: dict[str, Any], size: tuple[int, int]) -> float:
    if "area" in annotation:
        return annotation["area"]
    alone = Image.new("L", size)
    _draw(alone, annotation["segmentation"], 1)
    return alone.histogram()[1]


def _draw(mask: Image.Image, segmentation: Any, class_id: int) -> None:
    if isinstance(segmentation, dict):  # run lengths down the columns, background first (crowds)
        height, width = segmentation["size"]
        if (width, height) != mask.size:
            raise ValueError(f"it is made for {width} x {height} pixels, not {mask.width} x {mask.height}")
        runs = segmentation["counts"]
        runs = _decompressed(runs) if isinstance(runs, str) else runs
        inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
        mask.paste(class_id, mask=Image.fromarray((inside * 255).astype(np.uint8)))
        return
    for polygon in segmentation:
        if len(polygon) >= 6:  # fewer than three corners enclose nothing
            ImageDraw.Draw(mask).polygon(polygon, fill=class_id)


def _decompressed(text: str) -> list[int]:
    """Run lengths from COCO's compressed form.

    A number is written in digits of 5 bits, the lowest first, as characters from "0" on; 32 marks that more
    follow, and 16 in the last one the sign. From the fourth number on it is the difference to the run two
    before.
    """
    runs: list[int] = []
    number = shift = 0
    for digit in (ord(character) - 48 for character in text):
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    return runs


def _require_file(annotations: Path) -> None:
    if not annotations.is_file():
        raise InputError(
            f"the annotations {annotations} do not exist: unpack COCO's annotations_trainval2017 there"
        )


def _read(annotations: Path, *parts: str) -> dict[str, Any]:
    _require_file(annotations)
    try:
        content = json.loads(read_text(annotations))
        if not all(isinstance(content[part], list) for part in parts):
            raise TypeError("no lists")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{annotations} holds no annotations of COCO's form ({first_sentence(error)}): unpack it again"
        ) from error
    return content


def _categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(content["categories"], key=lambda category: category["id"])
