"""Everything the tests do with the Hub in one process that has pos_hf: train, push, load, and meet faults.

usage: HF_ENDPOINT=... python -m tests.hub.session FOLDER FAULT...
FOLDER gets results.json, which the tests look at, and logits.pt. No test lives here.
"""

import contextlib
import copy
import hashlib
import io
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForSemanticSegmentation

from pos_hf.cli.main import main
from pos_hf.models import build_model
from tests.training.tiny import tiny_trainer

TOKEN_IN_YAML = "hf_plantedInTheConfigFile0123456789"
SECRET_FOLDER = "somebodys-private-folder"
IMAGES = torch.linspace(-1, 1, 2 * 3 * 64 * 48).reshape(2, 3, 64, 48)
CONFIG = {
    "dataset": "shapes",
    "num_labeled": 4,
    "num_unlabeled": 8,
    "num_test": 4,
    "selection_share": 0.0,
    "crop_size": 32,
    "model": "deeplabv3plus_tiny",
    "method": "unimatch_v2",
    "method_options": {"threshold": 0.3},
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": 1,
    "hub_token": TOKEN_IN_YAML,
}


def command(*arguments: object) -> dict[str, Any]:
    """Run `pos-hf` here, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def tree(folder: Path) -> dict[str, str]:
    """The hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def push_after_training(folder: Path) -> None:
    """A run that pushes itself once it is finished."""
    config, run = folder / "config.yaml", folder / SECRET_FOLDER / "run"
    config.write_text(json.dumps(CONFIG | {"output_dir": str(run)}))
    assert main(["train", str(config), "--push_to_hub", "true", "--hub_model_id", "me/live"]) == 0


def push_from_python(folder: Path) -> dict[str, Any]:
    """What the Hub holds of a trainer's run before its own `push_to_hub`."""
    trainer = tiny_trainer(
        str(folder / "python"),
        push_to_hub=True,
        hub_model_id="me/python",
        save_strategy="steps",
        save_steps=2,
        max_steps=4,
        logging_steps=3,
    )
    trainer.train()
    during = len(HfApi().model_info("me/python").siblings)
    trainer.push_to_hub(license="mit")
    trainer.create_model_card(license="mit")
    return {"files_during_training": during}


def push_a_benchmark(run: Path, folder: Path) -> dict[str, Any]:
    """The same run, had its images come from a dataset of the Hub."""
    shutil.copytree(run, folder / "benchmark", ignore=shutil.ignore_patterns("checkpoint-*"))
    settings = json.loads((run / "run.json").read_text())
    settings["facts"]["hub_dataset"] = "someone/shapes"
    (folder / "benchmark" / "run.json").write_text(json.dumps(settings))
    return command("push", folder / "benchmark", "--repo", "me/benchmark", "--yes")


def fine_tune(log: io.StringIO) -> dict[str, Any]:
    """Other classes on the pushed model: which tensors are new, and what is said about it."""
    handler = logging.StreamHandler(log)
    logging.getLogger("pos_hf").addHandler(handler)
    model = build_model("me/shapes", {0: "left", 1: "right"})
    logging.getLogger("pos_hf").removeHandler(handler)
    pushed = AutoModelForSemanticSegmentation.from_pretrained("me/shapes").state_dict()
    fresh = [name for name, value in model.state_dict().items() if not torch.equal(value, pushed[name])]
    return {"fresh": fresh, "log": log.getvalue(), "labels": model.config.num_labels}


def session(folder: Path, faults: list[str]) -> dict[str, Any]:
    time.sleep = lambda seconds: None  # waits between attempts are not what is tested
    results: dict[str, Any] = {}
    push_after_training(folder)
    run = folder / SECRET_FOLDER / "run"
    before = tree(run)
    results["dry"] = command("push", run, "--repo", "me/shapes", "--license", "apache-2.0")
    results["exists_after_dry_run"] = HfApi().repo_exists("me/shapes")
    options = "--repo", "me/shapes", "--license", "apache-2.0", "--space", "me/page"
    results["dry_space"] = command("push", run, *options)
    results["push"] = command("push", run, *options, "--yes")
    results["again"] = command("push", run, "--repo", "me/shapes", "--license", "apache-2.0", "--yes")
    results["faults"] = {fault: command("push", run, "--repo", f"me/{fault}", "--yes") for fault in faults}
    results["license"] = command("push", run, "--repo", "me/license", "--license", "nonsense", "--yes")
    results["run_untouched"] = tree(run) == before
    results["benchmark"] = push_a_benchmark(run, folder)
    model = copy.deepcopy(AutoModelForSemanticSegmentation.from_pretrained(run)).eval()
    with torch.no_grad():
        torch.save(model(IMAGES).logits, folder / "logits.pt")
    ModelCard.load("me/shapes").validate()
    results["evaluate"] = command("evaluate", "me/shapes", "shapes", "--out", folder / "evaluated")
    picture = next((run / "examples").rglob("image.jpg"))
    results["predict"] = command("predict", "me/shapes", picture, "--out", folder / "predicted")
    student = command("predict", "me/shapes", picture, "--out", folder / "student", "--subfolder", "student")
    results["predict_with_the_student"] = student
    results["python"] = push_from_python(folder)
    results["fine_tune"] = fine_tune(io.StringIO())
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    (out / "results.json").write_text(json.dumps(session(out, sys.argv[2:])))
