"""Exports of annotation tools from the check to the scores, without a word about their format."""

import json

from pos_hf.cli.main import main
from tests.cli.bad_input import keys
from tests.data.exports import coco_splits


def test_a_coco_export_of_three_splits_trains_and_is_scored(folder, capsys):
    coco_splits(folder / "export")
    before = sorted((folder / "export").rglob("*"))
    keys(dataset=str(folder / "export"), method="supervised", per_device_train_batch_size=1)(folder)
    config = str(folder / "config.yaml")
    assert main(["check-data", config]) == 0
    assert "annotations are read as COCO JSON" in capsys.readouterr().out
    assert main(["train", config]) == 0
    assert "export: annotations are read as COCO JSON" in capsys.readouterr().err
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["protocol"]["role"] == "test"
    assert set(metrics["per_category_iou"]) == {"background", "car", "dog"}
    assert sorted((folder / "export").rglob("*")) == before
