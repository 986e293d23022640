"""`pos-hf train` that goes on, is stopped, and starts over in the folder of another run."""

import json
import os
import signal
from pathlib import Path

import pytest

from pos_hf.cli.main import main
from pos_hf.training import POSTrainer
from pos_hf.training.checkpoints import INCOMPLETE


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    arguments = {
        "dataset": "shapes",
        "num_labeled": 2,
        "num_unlabeled": 4,
        "num_test": 1,
        "crop_size": 16,
        "model": "deeplabv3plus_tiny",
        "output_dir": str(tmp_path / "run"),
        "max_steps": 2,
        "save_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
    }
    path.write_text(json.dumps(arguments))
    return path


def test_latest_goes_on_from_the_newest_complete_checkpoint(config, tmp_path, capsys):
    assert main(["train", str(config)]) == 0
    run = tmp_path / "run"
    weights = (run / "model.safetensors").read_bytes()
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 2
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    os.truncate(run / "checkpoint-2" / "optimizer.pt", 1000)
    (run / "model.safetensors").unlink()
    assert main(["train", str(config), "--resume_from_checkpoint", "latest"]) == 0
    assert "skipped checkpoint-2: optimizer.pt has 1000 bytes instead of" in capsys.readouterr().err
    assert (run / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("killed", [False, True])
def test_latest_begins_a_run_that_has_no_checkpoint_yet(config, tmp_path, capsys, killed):
    """One command serves a scheduler's first start and every later one."""
    run = tmp_path / "run"
    if killed:
        (run / INCOMPLETE / "checkpoint-1").mkdir(parents=True)
        (run / "run.json").write_text("{}")
    assert main(["train", str(config), "--resume_from_checkpoint", "latest"]) == 0
    assert f"{run} has no checkpoint yet: starting" in capsys.readouterr().err
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 2


def test_latest_never_replaces_a_finished_run(config, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_text("mine")
    assert main(["train", str(config), "--resume_from_checkpoint", "latest"]) == 2
    assert "model.safetensors' exists and is kept" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]


def test_a_stopped_run_exits_with_143_and_overwrite_removes_the_other_run(config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "checkpoint-500").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    training_step = POSTrainer.training_step

    def stop(trainer, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return training_step(trainer, *args)

    monkeypatch.setattr(POSTrainer, "training_step", stop)
    with pytest.raises(SystemExit) as end:
        main(["train", str(config), "--overwrite"])
    assert end.value.code == 143
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-1", "run.json"]


def test_a_checkpoint_of_another_run_replaces_no_run_unasked(config, tmp_path, capsys):
    other = str(tmp_path / "other")
    assert main(["train", str(config)]) == 0
    assert main(["train", str(config), "--output_dir", other, "--max_steps", "1"]) == 0
    resume = ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-1"), "--output_dir", other]
    assert main(["train", str(config), *resume]) == 2
    assert "other holds another run" in capsys.readouterr().err
    assert main(["train", str(config), *resume, "--overwrite"]) == 0


def test_a_replaced_run_leaves_no_file_that_would_pass_for_the_new_ones(config, tmp_path):
    assert main(["train", str(config), "--method", "fixmatch"]) == 0
    run = tmp_path / "run"
    assert (run / "student").is_dir()
    (run / "landscape.jsonl").write_text("{}")
    assert main(["train", str(config), "--method", "supervised", "--overwrite"]) == 0
    assert not (run / "student").exists()
    assert not (run / "landscape.jsonl").exists()


def test_a_rerun_finishes_what_a_full_disk_left_undone(config, tmp_path):
    run = tmp_path / "run"
    assert main(["train", str(config)]) == 0
    results = ["README.md", "report.html", "run.json", "metrics.json", "trainer_state.json", "manifest.json"]
    whole = {name: (run / name).read_bytes() for name in results}
    pictures = sorted(run.glob("examples/*/*"))
    for name in ("report.html", "README.md"):
        (run / name).write_bytes(b"" if name == "README.md" else whole[name][:50])
    for name in ("run.json", "metrics.json", "trainer_state.json"):
        (run / name).write_bytes(whole[name][: len(whole[name]) // 2])
    pictures[0].unlink()
    assert main(["train", str(config), "--resume_from_checkpoint", "latest"]) == 0
    assert sorted(run.glob("examples/*/*")) == pictures
    for name in ("README.md", "metrics.json", "manifest.json"):
        assert (run / name).read_bytes() == whole[name], name
    assert len((run / "report.html").read_bytes()) > len(whole["report.html"]) // 2
    assert main(["report", str(run)]) == 0
