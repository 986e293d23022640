"""Predicted masks in the forms that annotation tools import, for people to correct. formats/ reads them back.

Every class but the background becomes one object an image, pixel by pixel; 255 becomes the label "ignore".
"""

import base64
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pos_hf.data.formats.base import BACKGROUND_LABELS, IGNORED_LABELS
from pos_hf.data.run_lengths import packed_brush
from pos_hf.values import IGNORE_INDEX

IGNORED_COLOR = (255, 255, 255)


class Prediction(NamedTuple):
    """One predicted image."""

    id: str
    image: str
    """Path, seen from the folder that is written."""
    mask: Path
    """A PNG of class ids, 255 where nothing is said."""


class Classes(NamedTuple):
    """What class ids mean."""

    names: Sequence[str]
    palette: Sequence[Sequence[int]]

    def objects(self, mask_HW: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Label and pixels, bool [H, W], of each class that the mask shows, without the background."""
        for id in np.unique(mask_HW):
            label = IGNORED_LABELS[0] if id == IGNORE_INDEX else self.names[id]
            if label not in BACKGROUND_LABELS:
                yield label, mask_HW == id


def _read(prediction: Prediction) -> np.ndarray:
    with Image.open(prediction.mask) as mask:
        return np.asarray(mask)


def write_coco(out: Path, predictions: Sequence[Prediction], classes: Classes) -> None:
    """annotations.json with run lengths down the columns."""
    labels = [*classes.names, IGNORED_LABELS[0]]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for prediction in predictions:
        mask = _read(prediction)
        height, width = mask.shape
        images.append(
            {"id": len(images) + 1, "file_name": prediction.image, "width": width, "height": height}
        )
        for label, inside in classes.objects(mask):
            left, top, right, bottom = _box(inside)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": labels.index(label) + 1,
                    "segmentation": {"size": [height, width], "counts": _runs(inside.T)},
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(inside.sum()),
                    "iscrowd": 1,
                }
            )
    categories = [{"id": id, "name": name} for id, name in enumerate(labels, 1)]
    _write_json(
        out / "annotations.json", {"images": images, "annotations": annotations, "categories": categories}
    )


def write_labelme(out: Path, predictions: Sequence[Prediction], classes: Classes) -> None:
    """A JSON file an image, with shapes of the type mask."""
    for prediction in predictions:
        mask, file = _read(prediction), out / f"{prediction.id}.json"
        shapes: list[dict[str, Any]] = []
        for label, inside in classes.objects(mask):
            left, top, right, bottom = _box(inside)
            png = io.BytesIO()
            Image.fromarray(inside[top:bottom, left:right]).save(png, "PNG")
            shapes.append(
                {
                    "label": label,
                    "points": [[left, top], [right - 1, bottom - 1]],
                    "group_id": None,
                    "description": "",
                    "shape_type": "mask",
                    "flags": {},
                    "mask": base64.b64encode(png.getvalue()).decode(),
                }
            )
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": os.path.relpath(prediction.image, os.path.dirname(prediction.id)),
            "imageData": None,
            "imageHeight": mask.shape[0],
            "imageWidth": mask.shape[1],
        }
        _write_json(file, content)


def write_label_studio(out: Path, predictions: Sequence[Prediction], classes: Classes) -> None:
    """tasks.json with a prediction of brush strokes a task, and the labeling interface they need."""
    tasks = []
    for prediction in predictions:
        mask = _read(prediction)
        results = [
            {
                "id": f"{prediction.id}-{number}",
                "type": "brushlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": mask.shape[1],
                "original_height": mask.shape[0],
                "image_rotation": 0,
                "value": {"format": "rle", "rle": list(packed_brush(inside)), "brushlabels": [label]},
            }
            for number, (label, inside) in enumerate(classes.objects(mask))
        ]
        image = f"/data/local-files/?d={prediction.image}"
        predicted = {"model_version": "pos_hf", "result": results}
        tasks.append({"data": {"image": image}, "predictions": [predicted]})
    _write_json(out / "tasks.json", tasks)
    colors = [*zip(classes.names, classes.palette, strict=False), (IGNORED_LABELS[0], IGNORED_COLOR)]
    labels = "".join(
        f'    <Label value="{name}" background="#{bytes(color).hex()}"/>\n'
        for name, color in colors
        if name not in BACKGROUND_LABELS
    )
    (out / "interface.xml").write_text(
        '<View>\n  <Image name="image" value="$image"/>\n  <BrushLabels name="label" toName="image">\n'
        f"{labels}  </BrushLabels>\n</View>\n"
    )


def write_cvat(out: Path, predictions: Sequence[Prediction], classes: Classes) -> None:
    """CVAT's "segmentation mask 1.1": labelmap.txt, painted masks and the list of images.

    There "ignore" is a label like any other.
    """
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(classes.names)] = np.array(classes.palette, np.uint8)[: len(classes.names)]
    colors[IGNORE_INDEX] = IGNORED_COLOR
    used = dict(enumerate(classes.names))
    for prediction in predictions:
        mask, file = _read(prediction), out / "SegmentationClass" / f"{prediction.id}.png"
        if (mask == IGNORE_INDEX).any():
            used[IGNORE_INDEX] = IGNORED_LABELS[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors[mask]).save(file)
    lines = [f"{name}:{','.join(str(part) for part in colors[id])}::" for id, name in used.items()]
    (out / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    listed = out / "ImageSets" / "Segmentation" / "default.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{prediction.id}\n" for prediction in predictions))


WRITERS: dict[str, Callable[[Path, Sequence[Prediction], Classes], None]] = {
    "coco": write_coco,
    "cvat": write_cvat,
    "labelme": write_labelme,
    "labelstudio": write_label_studio,
}
"""By the name that `pos-hf predict --to` gives them."""


def _box(inside_HW: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the smallest box around pixels."""
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _runs(inside: np.ndarray) -> list[int]:
    """Lengths of the runs of False and True by turns, False first, row by row."""
    flat = np.concatenate([[False], inside.ravel()])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *ends, inside.size]).tolist()


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
