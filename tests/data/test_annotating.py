"""Predicted masks, written for an annotation tool and read back by the reader of its format, are the same."""

import json

import numpy as np
import pytest
from PIL import Image

from pos_hf.data import DataArguments
from pos_hf.data.annotating import WRITERS, Classes, Prediction
from pos_hf.data.loading import load_roles
from pos_hf.data.run_lengths import brush_strokes, packed_brush
from tests.data.conftest import picture

CLASSES = Classes(["background", "car", "dog"], [[0, 0, 0], [128, 0, 0], [0, 128, 0]])


def blobs(seed: int, ignored: bool) -> np.ndarray:
    """Class ids of 40 x 48 pixels in irregular patches, single pixels among them."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, (5, 6)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.05] = 2
    if ignored:
        mask[rng.random(mask.shape) < 0.1] = 255
    return mask


@pytest.mark.parametrize("ignored", [False, True], ids=["all said", "some ignored"])
@pytest.mark.parametrize("tool", WRITERS)
def test_what_is_written_for_a_tool_is_read_back_bit_for_bit(tmp_path, tool, ignored):
    root = tmp_path / "data"
    images = root / ("JPEGImages" if tool == "cvat" else "images")
    out = root if tool == "cvat" else root / tool
    masks, predictions = {}, []
    for seed, id in enumerate(("a", "sub/b", "c")):
        masks[id] = blobs(seed, ignored)
        for folder, image in ((images, picture(seed)), (tmp_path / "masks", Image.fromarray(masks[id]))):
            (folder / id).parent.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{id}.png")
        predictions.append(Prediction(id, f"../images/{id}.png", tmp_path / "masks" / f"{id}.png"))
    out.mkdir(exist_ok=True)
    WRITERS[tool](out, predictions, CLASSES)
    if tool == "labelstudio":  # what it exports where every prediction was accepted
        tasks = json.loads((out / "tasks.json").read_text())
        accepted = [task | {"annotations": task.pop("predictions")} for task in tasks]
        (out / "tasks.json").write_text(json.dumps(accepted))
    data = load_roles(DataArguments(dataset=str(root), selection_share=0), needs_unlabeled=False)
    names = list(data.id2label.values())
    assert names == [*CLASSES.names, *(["ignore"] if tool == "cvat" and ignored else [])]
    found = {row["id"].removeprefix("images/"): np.asarray(row["mask"]) for row in data.labeled}
    assert found.keys() == masks.keys()
    for id, mask in masks.items():
        expected = np.where(mask == 255, 3, mask) if "ignore" in names else mask
        assert np.array_equal(found[id], expected), id


@pytest.mark.parametrize("length", [1, 2, 5, 64, 65, 16384, 16385])
def test_brush_strokes_of_every_length_are_read_back(length):
    inside = np.zeros((3, 16400), bool)
    inside[1, 7 : 7 + length] = True
    assert np.array_equal(brush_strokes(packed_brush(inside), 16400, 3), inside)
