"""What commands do with data that is good enough: broken pictures that are skipped, absent roles."""

import json
import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pos_hf.cli.main import main
from tests.cli.bad_input import cut, keys


def add_labeled(folder: Path, name: str) -> None:
    for part in ("images", "masks"):
        shutil.copy(folder / "data" / part / "1.png", folder / "data" / part / f"{name}.png")


def test_broken_pictures_are_skipped_where_the_config_says_so(folder, capsys):
    keys(on_bad_sample="skip", max_steps=2, logging_steps=1)(folder)
    add_labeled(folder, "2")
    for name in ("images/0.png", "masks/2.png", "unlabeled/extra_0.png"):
        cut(f"data/{name}", 0.5)(folder)
    assert main(["check-data", str(folder / "config.yaml")]) == 0
    assert "3 warnings" in capsys.readouterr().out
    assert main(["train", str(folder / "config.yaml")]) == 0
    history = json.loads((folder / "run" / "trainer_state.json").read_text())["log_history"]
    assert sum(entry.get("bad_samples", 0) for entry in history) >= 2


def test_a_supervised_run_needs_no_unlabeled_images(folder, capsys):
    shutil.rmtree(folder / "data" / "unlabeled")
    for name in ("2", "3"):
        add_labeled(folder, name)
    keys(method="supervised", selection_share=0.5)(folder)
    config, run = str(folder / "config.yaml"), str(folder / "run")
    assert main(["check-data", config]) == 0
    assert main(["train", config]) == 0
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    capsys.readouterr()
    # as the run did: there are no test images, so the selection set is scored
    assert main(["evaluate", run, config, "--out", str(folder / "scores")]) == 0
    scores = json.loads((folder / "scores" / "metrics.json").read_text())
    assert (
        scores["mean_iou"] == pytest.approx(metrics["mean_iou"]) and scores["protocol"]["role"] == "selection"
    )
    assert main(["evaluate", run, config, "--subfolder", "student"]) == 2
    assert "none in its folder 'student'" in capsys.readouterr().err


def test_a_test_set_of_masks_of_0_and_255_is_warned_of(folder, labels_as_test, caplog):
    masks = folder / "data" / "test" / "masks"
    masks.unlink()
    shutil.copytree(folder / "data" / "masks", masks)
    for path in masks.iterdir():
        Image.fromarray(255 * np.asarray(Image.open(path))).save(path)
    assert main(["evaluate", str(folder / "model"), str(folder / "config.yaml")]) == 0
    assert "all masks (test) hold only 0 and 255" in caplog.text


def test_a_config_may_be_json(folder):
    (folder / "config.yaml").rename(folder / "config.json")
    for command in (["check-data"], ["evaluate", str(folder / "model")]):
        role = ["--role", "labeled"] if len(command) > 1 else []
        assert main([*command, str(folder / "config.json"), *role]) == 0


def test_words_are_not_replaced_by_what_they_look_like(tmp_path, monkeypatch, capsys):
    """A dataset called "a" lies in the way of every sentence that has an a."""
    monkeypatch.chdir(tmp_path)
    for part in ("images", "masks", "unlabeled"):
        (tmp_path / "a" / part).mkdir(parents=True)
        Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(f"a/{part}/1.png")
    (tmp_path / "a" / "id2label.json").write_text('{"0": "x", "1": "y"}')
    assert main(["check-data", "a"]) == 2
    assert (
        "error: labeled a/masks/1.png: is painted in colours (RGB) where one channel"
        in capsys.readouterr().out
    )
    shutil.rmtree("a/masks")
    assert main(["check-data", "a"]) == 2
    assert (
        "error: all a: the folder a/masks does not exist: create it, or name another"
        in capsys.readouterr().out
    )


def test_a_low_limit_of_open_files_is_named(folder, capsys):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 1, limits[1]))
    held = []
    try:
        with suppress(OSError):
            while True:
                held.append(open(os.devnull))  # noqa: SIM115
        assert main(["check-data", str(folder / "data")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in held:
            file.close()
    printed = capsys.readouterr()
    assert (
        "ulimit -n" in printed.err and "Traceback" not in printed.err and len(printed.err.splitlines()) == 1
    )
