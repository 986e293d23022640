"""A user's folder without a defect: images, masks, a config that trains on them, and a model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pos_hf.models import build_model, default_image_processor

CLASSES = {0: "background", 1: "cat"}


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "unlabeled"):
        (root / "data" / name).mkdir(parents=True)
    for index in range(2):
        image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        image.save(root / "data" / "images" / f"{index}.png")
        image.save(root / "data" / "unlabeled" / f"extra_{index}.png")
        mask = Image.fromarray(rng.integers(0, 2, (20, 24), dtype=np.uint8))
        mask.save(root / "data" / "masks" / f"{index}.png")
    (root / "data" / "id2label.json").write_text(json.dumps(CLASSES))
    build_model("deeplabv3plus_tiny", CLASSES).save_pretrained(root / "model")
    default_image_processor().save_pretrained(root / "model")
    return root


@pytest.fixture
def folder(template, tmp_path) -> Path:
    """Two labeled and two unlabeled images, config.yaml, and a model of the same two classes."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    config = {
        "dataset": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "run"),
        "model": "deeplabv3plus_tiny",
        "crop_size": 16,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "selection_share": 0.0,
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def labels_as_test(folder) -> None:
    """The labeled images of `folder` are its test images too."""
    (folder / "data" / "test").mkdir()
    for role in ("images", "masks"):
        (folder / "data" / "test" / role).symlink_to(folder / "data" / role)
