"""The scripts in scripts/examples that no page runs."""

import runpy
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"


def test_a_resized_folder_keeps_its_lists_and_its_class_ids(tmp_path):
    source, target = tmp_path / "source", tmp_path / "small"
    for kind in ("images", "masks"):
        (source / "train" / kind).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    ids = np.where(np.arange(60) < 30, 3, 255).astype(np.uint8) * np.ones((40, 1), np.uint8)
    Image.fromarray(pixels).save(source / "train" / "images" / "a.jpg")
    Image.fromarray(ids).save(source / "train" / "masks" / "a.png")
    (source / "labeled.txt").write_text("a\n")
    runpy.run_path(str(EXAMPLES / "resize_folder.py"))["main"](source, target, 30, 20)
    with Image.open(target / "train" / "images" / "a.png") as image:
        assert image.size == (30, 20)
    with Image.open(target / "train" / "masks" / "a.png") as mask:
        assert np.array_equal(np.asarray(mask), ids[::2, ::2])
    assert (target / "labeled.txt").read_text() == "a\n"
