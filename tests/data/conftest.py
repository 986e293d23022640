"""A small folder dataset that is free of defects."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (48, 40)  # width, height
CLASSES = ["background", "cat", "dog"]


def picture(seed):
    """A smooth random RGB picture; every seed's looks different."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)


def mask_ids(seed):
    """Class ids in three bands of random height, and a row of ignored pixels."""
    first, second = np.sort(np.random.default_rng(seed).integers(8, 34, 2))
    ids = np.zeros(SIZE[::-1], np.uint8)
    ids[first:second], ids[second:], ids[0] = 1, 2, 255
    return ids


def write_pair(folder: Path, name: str, seed: int):
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    picture(seed).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask_ids(seed)).save(folder / "masks" / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    """6 labeled, 4 unlabeled and 3 test images."""
    root = tmp_path / "pets"
    for index in range(6):
        write_pair(root, f"pet_{index}", seed=index)
    for index in range(3):
        write_pair(root / "test", f"pet_{index}", seed=100 + index)
    (root / "unlabeled").mkdir()
    for index in range(4):
        picture(200 + index).save(root / "unlabeled" / f"street_{index}.jpg")
    (root / "id2label.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    return root
