"""Small exports of annotation tools, written by the tools' documented layouts, and what they must look like.

Every export shows the same scene in `a.jpg`, 48 x 40 pixels: a `car` (a polygon), over it a `dog` (another,
or a bitmap where the format knows bitmaps). `b.jpg` is not annotated.
"""

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.conftest import SIZE, picture

WIDTH, HEIGHT = SIZE
CAR = [[3.2, 4.1], [30.7, 6.3], [41.5, 33.0], [5.0, 30.4]]
DOG = [[20.0, 12.0], [36.0, 12.0], [36.0, 26.0], [28.0, 20.5], [20.0, 26.0]]
SPOT = (10, 20)  # left and top corner of the bitmap


def inside(polygon: list[list[float]]) -> np.ndarray:
    """Pixels whose centre lies in a polygon, by counting crossings one pixel and one edge at a time."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y, crossings = column + 0.5, row + 0.5, 0
            for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                    crossings += 1
            found[row, column] = crossings % 2
    return found


def bitmap() -> np.ndarray:
    """An irregular object of 12 x 9 pixels."""
    return np.random.default_rng(5).random((9, 12)) < 0.6


def scene(car: int, dog: int, with_bitmap: bool) -> np.ndarray:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[inside(CAR)] = car
    if with_bitmap:
        left, top = SPOT
        ids[top : top + 9, left : left + 12][bitmap()] = dog
    else:
        ids[inside(DOG)] = dog
    return ids


def near_borders(ids: np.ndarray) -> np.ndarray:
    """Pixels that have a neighbour of another class."""
    border = np.zeros(ids.shape, bool)
    padded = np.pad(ids, 1, mode="edge")
    for down in (0, 1, 2):
        for across in (0, 1, 2):
            border |= padded[down : down + ids.shape[0], across : across + ids.shape[1]] != ids
    return border


def save_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        picture(sum(map(ord, name)) + index).save(folder / name)


def flat(polygon: list[list[float]]) -> list[float]:
    return [number for point in polygon for number in point]


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def runs(values: np.ndarray) -> list[int]:
    """Lengths of equal values, background first."""
    lengths, current, count = [], 0, 0
    for value in values.ravel().tolist():
        if value == current:
            count += 1
        else:
            lengths.append(count)
            current, count = value, 1
    return [*lengths, count]


def full_bitmap() -> np.ndarray:
    whole = np.zeros((HEIGHT, WIDTH), np.uint8)
    whole[SPOT[1] : SPOT[1] + 9, SPOT[0] : SPOT[0] + 12] = bitmap()
    return whole


def labelme(root: Path) -> None:
    save_images(root, "a.jpg", "b.jpg")
    shapes = [
        {"label": "car", "points": CAR, "group_id": None, "shape_type": "polygon", "flags": {}},
        {"label": "dog", "points": DOG, "group_id": 1, "shape_type": "polygon", "flags": {}},
    ]
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None}
    (root / "a.json").write_text(json.dumps(content | {"imageHeight": HEIGHT, "imageWidth": WIDTH}))


def labelme_with_images_inside(root: Path) -> None:
    labelme(root)
    content = json.loads((root / "a.json").read_text())
    content["imageData"] = base64.b64encode((root / "a.jpg").read_bytes()).decode()
    left, top = SPOT
    content["shapes"][1] |= {
        "shape_type": "mask",
        "points": [[left, top], [left + 12, top + 9]],
        "mask": base64.b64encode(png(bitmap())).decode(),
    }
    (root / "a.json").write_text(json.dumps(content))
    (root / "a.jpg").unlink()
    (root / "b.json").write_text(
        json.dumps(content | {"shapes": [], "imagePath": "b.jpg", "imageData": None})
    )


def coco(root: Path, split: str = "train") -> None:
    """As Roboflow exports it, run lengths not compressed."""
    save_images(root / split, f"{split}_a.jpg", f"{split}_b.jpg")
    images = [
        {"id": id, "file_name": f"{split}_{name}.jpg", "width": WIDTH, "height": HEIGHT}
        for id, name in enumerate("ab")
    ]
    runs_down = {"size": [HEIGHT, WIDTH], "counts": runs(full_bitmap().T)}
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [flat(CAR)], "iscrowd": 0},
        {"id": 2, "image_id": 0, "category_id": 2, "segmentation": runs_down, "iscrowd": 0},
    ]
    names = ["animals", "car", "dog"]
    categories = [
        {"id": id, "name": name, "supercategory": "animals" if id else "none"}
        for id, name in enumerate(names)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def coco_splits(root: Path) -> None:
    for split in ("train", "valid", "test"):
        coco(root, split)


def cvat_xml(root: Path) -> None:
    """The dog comes first in the file but has the higher layer."""
    save_images(root / "images", "a.jpg", "b.jpg")
    left, top = SPOT
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in CAR)
    listed = ", ".join(map(str, runs(bitmap())))
    labels = "".join(
        f"<label><name>{name}</name><color>{color}</color></label>"
        for name, color in (("car", "#ff0000"), ("dog", "#0000ff"))
    )
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        f"<meta><job><labels>{labels}</labels></job></meta>\n"
        f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">'
        f'<mask label="dog" source="manual" occluded="0" rle="{listed}" left="{left}" top="{top}" width="12" '
        'height="9" z_order="1"></mask>'
        f'<polygon label="car" occluded="0" points="{points}" z_order="0"></polygon></image>\n'
        f'<image id="1" name="b.jpg" width="{WIDTH}" height="{HEIGHT}"></image>\n</annotations>\n'
    )


def brush(values: np.ndarray) -> list[int]:
    """Label Studio's bits for a painted mask: blocks of one repeated value, and one of different values."""
    alpha = np.where(values, 255, 0).astype(np.uint8)
    channels = np.repeat(alpha.reshape(-1, 1), 4, axis=1).ravel().tolist()
    bits = f"{len(channels):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    place = 0
    while place < len(channels):
        count = 1
        while place + count < len(channels) and channels[place + count] == channels[place] and count < 60000:
            count += 1
        if count > 5:
            bits += "1" + "11" + f"{count - 1:016b}" + f"{channels[place]:08b}"
        else:
            count = min(8, len(channels) - place)
            bits += "0" + "00" + f"{count - 1:03b}" + "".join(f"{v:08b}" for v in channels[place:][:count])
        place += count
    bits += "0" * (-len(bits) % 8)
    return [int(bits[index : index + 8], 2) for index in range(0, len(bits), 8)]


def label_studio(root: Path) -> None:
    save_images(root / "images", "a.jpg", "b.jpg")
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    shared = size | {"from_name": "label", "to_name": "image", "origin": "manual"}
    percent = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CAR]
    results = [
        shared
        | {"type": "polygonlabels", "value": {"points": percent, "closed": True, "polygonlabels": ["car"]}},
        shared
        | {
            "type": "brushlabels",
            "value": {"format": "rle", "rle": brush(full_bitmap()), "brushlabels": ["dog"]},
        },
    ]
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
            "annotations": [{"id": 1, "was_cancelled": False, "result": results}],
        },
        {"id": 2, "data": {"image": "/data/local-files/?d=images/b.jpg"}, "annotations": []},
    ]
    (root / "project-1.json").write_text(json.dumps(tasks))


def yolo(root: Path) -> None:
    save_images(root / "train" / "images", "a.jpg", "b.jpg")
    (root / "train" / "labels").mkdir()
    lines = [
        " ".join([str(id), *(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in polygon)])
        for id, polygon in enumerate((CAR, DOG))
    ]
    (root / "train" / "labels" / "a.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [car, dog]\n"
    )


def supervisely(root: Path) -> None:
    save_images(root / "ds0" / "img", "a.jpg", "b.jpg")
    (root / "ds0" / "ann").mkdir()
    classes = [
        {"title": "car", "shape": "polygon", "color": "#FF0000"},
        {"title": "dog", "shape": "bitmap", "color": "#0000FF"},
    ]
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": [], "projectType": "images"}))
    transparent = np.zeros((9, 12, 4), np.uint8)
    transparent[bitmap()] = 255
    data = base64.b64encode(zlib.compress(png(transparent))).decode()
    objects = [
        {"classTitle": "car", "geometryType": "polygon", "points": {"exterior": CAR, "interior": []}},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": list(SPOT)}},
    ]
    size = {"height": HEIGHT, "width": WIDTH}
    for name, shown in (("a", objects), ("b", [])):
        content = {"description": "", "tags": [], "size": size, "objects": shown}
        (root / "ds0" / "ann" / f"{name}.jpg.json").write_text(json.dumps(content))


EXPORTS = {
    "labelme": (labelme, "LabelMe JSON", False),
    "labelme_inside": (labelme_with_images_inside, "LabelMe JSON", True),
    "coco_json": (coco, "COCO JSON", True),
    "cvat_xml": (cvat_xml, "CVAT XML", True),
    "label_studio": (label_studio, "Label Studio JSON", True),
    "supervisely": (supervisely, "Supervisely JSON", True),
    "yolo": (yolo, "YOLO segmentation labels", False),
}
"""How each is written, what it is called, and whether its dog is a bitmap."""
