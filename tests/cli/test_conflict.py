"""`pos-hf conflict` on a tiny run; the estimator is tested in tests/balancing."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate
from transformers import AutoModelForSemanticSegmentation

from pos_hf.cli.main import main
from pos_hf.runs.conflict import draw_batches, rebuild
from tests.launching import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conflict") / "run"
    options = "--max_steps 2 --num_labeled 6 --num_unlabeled 8 --num_test 2 --per_device_train_batch_size 2"
    options += " --crop_size 32 --eval_strategy no --save_strategy steps --save_steps 1 --use_cpu"
    options += f" --output_dir {folder}"
    # every pixel counts, so that there is an unsupervised gradient from the first step on
    method = ["--method_options", '{"threshold": 0.0}']
    config = str(ROOT / "configs" / "shapes" / "pos_meo.yaml")
    assert main(["train", config, *options.split(), *method]) == 0
    return folder


def test_the_command_measures_every_moment_it_is_asked_for_once(run, capsys, monkeypatch):
    call = ["conflict", str(run), "--batches", "16"]
    assert main([*call, "--checkpoint", "checkpoint-1", str(run / "checkpoint-2")]) == 0
    printed = capsys.readouterr().out
    assert "| checkpoint-1 | checkpoint-2 |" in printed and "checkpoint-2: " in printed
    assert main(call) == 0
    document = json.loads((run / "conflict.json").read_text())
    moments = document.pop("moments")
    assert document == {"labeled_images": 2, "unlabeled_images": 2, "batches": 16, "seed": 0}
    assert list(moments) == ["checkpoint-1", "checkpoint-2", "exported"]
    # the export is of the last step's weights
    assert moments["exported"] == moments["checkpoint-2"] != moments["checkpoint-1"]
    assert moments["checkpoint-1"]["step"] == 1
    low, high = moments["checkpoint-1"]["product"][1:]
    assert low < high
    assert (run / "conflict.svg").read_text().startswith("<?xml")

    trainer, _ = rebuild(run)
    student = AutoModelForSemanticSegmentation.from_pretrained(run / "checkpoint-1").train()
    gradients = []
    for batch in draw_batches(trainer, 16, seed=0):
        labeled = trainer.device_batch(batch)["labeled"]
        logits = interpolate(student(labeled["pixel_values"]).logits, (32, 32), mode="bilinear")
        loss = cross_entropy(logits, labeled["labels"], ignore_index=255)
        found = torch.autograd.grad(loss, [*student.parameters()], materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in found]).double())
    square = sum(float(x @ y) for x in gradients for y in gradients if x is not y) / (16 * 15)
    assert moments["checkpoint-1"]["supervised_square"][0] == pytest.approx(square, rel=1e-4)

    before = (run / "conflict.json").read_bytes()
    monkeypatch.setattr("pos_hf.runs.conflict.measure", None)  # what is there is not measured again
    assert main(call) == 0
    assert main([*call[:-1], "17"]) == 2
    assert "--batches 16 --seed 0" in capsys.readouterr().err
    assert main([*call, "--checkpoint", "checkpoint-3"]) == 2
    assert "checkpoint-1, checkpoint-2" in capsys.readouterr().err
    assert (run / "conflict.json").read_bytes() == before
