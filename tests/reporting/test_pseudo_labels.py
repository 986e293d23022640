"""Pictures of pseudo-labels: what a pixel shows, and when they are written."""

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image

from pos_hf.evaluation import Prediction
from pos_hf.reporting.pseudo_labels import (
    DROPPED,
    GAP,
    TILE_WIDTH,
    pseudo_label_picture,
)
from tests.training.tiny import tiny_trainer

PALETTE = [[10, 20, 30], [200, 100, 50], [0, 250, 0]]


def halves(left: int, right: int) -> np.ndarray:
    """A map of 8 x 16 pixels with one value in each half."""
    return np.repeat(np.array([[left, right]], np.uint8), 8, 1).repeat(8, 0)


def test_a_picture_shows_image_truth_kept_labels_and_confidence() -> None:
    row = {
        "image": Image.new("RGB", (16, 8), (7, 77, 177)),
        "mask": Image.fromarray(halves(2, 0)),
    }
    prediction = Prediction(
        labels=halves(1, 0),
        confidence=halves(int(0.9 * 255), int(0.5 * 255)),
        pseudo_labels=halves(1, 255),
    )
    picture = pseudo_label_picture([row], [prediction], PALETTE)
    height = TILE_WIDTH // 2
    assert picture.size == (4 * (TILE_WIDTH + GAP), height + GAP)
    image, truth, labels, confidence = (
        np.asarray(picture)[:height, i * (TILE_WIDTH + GAP) :][:, :TILE_WIDTH] for i in range(4)
    )
    left, right = slice(0, TILE_WIDTH // 2 - 24), slice(TILE_WIDTH // 2 + 24, TILE_WIDTH)
    assert (image == (7, 77, 177)).all()
    assert (truth[:, left] == PALETTE[2]).all() and (truth[:, right] == PALETTE[0]).all()
    assert (labels[:, left] == PALETTE[1]).all()
    assert set(np.unique(labels[:, right])) == set(DROPPED)
    assert (confidence[:, left] == int(0.9 * 255)).all() and (confidence[:, right] == int(0.5 * 255)).all()


@pytest.fixture
def rows() -> Dataset:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(4)]
    masks = [random.integers(0, 3, (8, 8)).astype(np.uint8) for _ in range(4)]
    features = Features({"id": Value("string"), "image": ImageColumn(), "mask": ImageColumn()})
    return Dataset.from_dict({"id": list("abcd"), "image": images, "mask": masks}, features=features)


@pytest.mark.parametrize("method", ["fixmatch", "supervised"])
def test_training_writes_a_picture_at_every_evaluation_of_a_method_with_pseudo_labels(
    tmp_path, rows, method
) -> None:
    trainer = tiny_trainer(str(tmp_path), method=method, max_steps=4)
    trainer.eval_dataset = rows
    trainer.args.eval_strategy, trainer.args.eval_steps = "steps", 2
    trainer.train()
    written = sorted(path.name for path in tmp_path.glob("pseudo_labels/*"))
    assert written == (["step-000002.png", "step-000004.png"] if method == "fixmatch" else [])
