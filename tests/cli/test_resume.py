"""`pos-hf train` that goes on, is stopped, and starts over in the folder of another run."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from pos_hf.cli.main import main
from pos_hf.files import INCOMPLETE
from pos_hf.training import POSTrainer
from tests.training.killing import fork


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


ANOTHER_RUN = [
    (["--method", "fixmatch"], ['method "unimatch_v2" (now "fixmatch")']),
    (["--strategy", "uniform"], ['strategy "pos" (now "uniform")']),
    (["--method_options", '{"threshold": 0.9}'], ['method_options {} (now {"threshold": 0.9})']),
    (["--model", "dinov2_dpt_tiny"], ['model "deeplabv3plus_tiny"']),
    (["--num_labeled", "3"], ["num_labeled 2 (now 3)", "split_hash"]),
    (["--crop_size", "24", "--seed", "1"], ["crop_size 16 (now 24)", "seed 42 (now 1)"]),
    (["--per_device_train_batch_size", "4"], ["processes 2 (now 4)"]),
    (["--max_steps", "5"], ["max_steps 2 (now 5)"]),
    (["--optim", "sgd", "--learning_rate", "0.1"], ["optim", "learning_rate"]),
]
SAME_RUN = {
    "logging_steps": 1,
    "dataloader_num_workers": 1,
    "save_steps": 2,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
}


def test_a_checkpoint_is_gone_on_from_by_the_same_run_alone(config, tmp_path, capsys):
    assert main(["train", str(config), "--selection_share", "0"]) == 0
    run, resume = tmp_path / "run", ["--selection_share", "0", "--resume_from_checkpoint"]
    settings = (run / "run.json").read_text()
    for changes, words in ANOTHER_RUN:
        capsys.readouterr()
        assert main(["train", str(config), *resume, "latest", *changes]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said and "checkpoint-2 was written by a run with" in said
        for word in words:
            assert word in said, said
    assert (run / "run.json").read_text() == settings
    config.write_text(json.dumps(json.loads(config.read_text()) | SAME_RUN))
    assert main(["train", str(config), *resume, str(run / "checkpoint-1")]) == 0


def test_a_constant_schedule_may_go_on_for_more_steps(config, tmp_path):
    constant = ["--lr_scheduler_type", "constant", "--save_steps", "1"]
    assert main(["train", str(config), *constant, "--max_steps", "1"]) == 0
    assert main(["train", str(config), *constant, "--resume_from_checkpoint", "latest"]) == 0
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 2


def test_of_two_processes_in_one_folder_one_trains_and_the_other_is_told(config, tmp_path):
    said = tmp_path / "said"

    def train() -> None:
        with (said / str(os.getpid())).open("w") as file, contextlib.redirect_stderr(file):
            code = main(["train", str(config)])
        os._exit(code)

    said.mkdir()
    children = [fork(train) for _ in range(2)]
    codes = {child: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    assert sorted(codes.values()) == [0, 2]
    winner, loser = sorted(codes, key=codes.__getitem__)
    text = (said / str(loser)).read_text()
    assert f"in use by process {winner}" in text or "another run" in text
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_goes_in_mid_run_ends_it_and_is_not_written_to(
    config, tmp_path, monkeypatch, capsys, replaced
):
    run = tmp_path / "run"
    training_step = POSTrainer.training_step

    def step(trainer, *args):
        shutil.rmtree(run)
        if replaced:
            run.mkdir()
            (run / "run.json").write_text("another's")
        return training_step(trainer, *args)

    monkeypatch.setattr(POSTrainer, "training_step", step)
    assert main(["train", str(config)]) == 1
    assert f"{run} was removed or replaced while the run wrote to it" in capsys.readouterr().err
    assert [path.name for path in run.glob("*")] == ["run.json"] * replaced


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
