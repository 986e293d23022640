"""A checkpoint is complete or absent; what cannot be written or read is one sentence, and older ones stay."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from pos_hf.errors import InputError, TrainingStopped
from pos_hf.files import MANIFEST
from pos_hf.runs.resume import find_checkpoint
from pos_hf.training import POSConfig, POSTrainer
from pos_hf.training.checkpoints import checkpoints, find_damage, newest_complete, rotate

from .disks import files_no_larger_than, on_a_small_disk
from .killing import fork
from .resuming import SaveAt, make_trainer
from .stopping import SignalItself

STEPS = (1, 2, 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run with three checkpoints."""
    run = tmp_path_factory.mktemp("finished")
    make_trainer(str(run), "fixmatch", max_steps=4, callbacks=[SaveAt(STEPS)]).train()
    return run


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def test_the_manifest_lists_every_file_with_its_size_and_hash(finished):
    assert names(finished) == [f"checkpoint-{step}" for step in STEPS]
    for checkpoint in finished.iterdir():
        files = {path for path in checkpoint.rglob("*") if path.is_file()} - {checkpoint / MANIFEST}
        assert json.loads((checkpoint / MANIFEST).read_text()) == {
            path.relative_to(checkpoint).as_posix(): {
                "bytes": len(path.read_bytes()),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in files
        }
        assert find_damage(checkpoint) is None


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forget(checkpoint: Path, name: str) -> None:
    """A file that is gone from the folder and from its list."""
    (checkpoint / name).unlink()
    listed = json.loads((checkpoint / MANIFEST).read_text())
    del listed[name]
    (checkpoint / MANIFEST).write_text(json.dumps(listed))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no manifest": (MANIFEST, lambda c: (c / MANIFEST).unlink()),
    "empty manifest": (MANIFEST, lambda c: (c / MANIFEST).write_text("")),
    "manifest of nothing": (MANIFEST, lambda c: (c / MANIFEST).write_text("{}")),
    "no optimizer": (MANIFEST, lambda c: forget(c, "optimizer.pt")),
    "no student's state": (MANIFEST, lambda c: forget(c, "trainer_state.json")),
    "other JSON": (MANIFEST, lambda c: (c / MANIFEST).write_text('["model.safetensors"]')),
    "cut weights": ("model.safetensors", lambda c: os.truncate(c / "model.safetensors", 100)),
    "no teacher": ("teacher/model.safetensors", lambda c: (c / "teacher/model.safetensors").unlink()),
    "one bit": ("optimizer.pt", lambda c: flip_a_bit(c / "optimizer.pt")),
    "no rank file": ("rng_state.pth", lambda c: (c / "rng_state.pth").unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_latest_skips_a_damaged_checkpoint_and_says_why(run, damage, capsys):
    named, break_it = DAMAGES[damage]
    break_it(run / "checkpoint-3")
    args = POSConfig(output_dir=str(run), use_cpu=True, resume_from_checkpoint="latest")
    assert find_checkpoint(run, args) == str(run / "checkpoint-2")
    said = capsys.readouterr().err
    assert "checkpoint-3: " in said
    assert named in said
    args.resume_from_checkpoint = str(run / "checkpoint-3")
    with pytest.raises(InputError, match="checkpoint-3 is not complete") as refusal:
        find_checkpoint(run, args)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_latest_is_the_highest_step_not_the_last_name(run):
    (run / "checkpoint-3").rename(run / "checkpoint-10")
    assert newest_complete(run) == (run / "checkpoint-10", [])


def test_a_run_without_a_complete_checkpoint_says_what_is_wrong_with_each(run):
    for step in STEPS:
        flip_a_bit(run / f"checkpoint-{step}" / "model.safetensors")
    args = POSConfig(output_dir=str(run), use_cpu=True, resume_from_checkpoint="latest")
    with pytest.raises(InputError, match=r"no checkpoint in .*checkpoint-3: model.safetensors has changed"):
        find_checkpoint(run, args)


def test_a_checkpoint_that_a_kill_left_half_written_is_named_and_then_removed(run):
    left = Path(shutil.copytree(run / "checkpoint-3", run / "checkpoint-4"))
    (left / MANIFEST).unlink()
    (left / "left").touch()
    newest, (skipped,) = newest_complete(run)
    assert newest == run / "checkpoint-3"
    assert skipped.startswith("checkpoint-4: ") and "the run ended" in skipped
    resumed = make_trainer(str(run), "fixmatch", max_steps=4, callbacks=[SaveAt((4,))])
    resumed.train(resume_from_checkpoint=str(newest))
    assert names(run) == [f"checkpoint-{step}" for step in (*STEPS, 4)]
    assert find_damage(left) is None and not (left / "left").exists()


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(None, [1, 2, 3, 4]), (1, [1, 4]), (2, [1, 4]), (3, [1, 3, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])],
)
def test_the_lowest_steps_go_beyond_the_limit(tmp_path, limit, kept):
    for step in (1, 2, 3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / MANIFEST).touch()
    (tmp_path / "checkpoint-5").mkdir()  # a kill has left it
    rotate(tmp_path / "checkpoint-4", str(tmp_path / "checkpoint-1"), limit)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in (kept if limit else [*kept, 5])]


def test_older_checkpoints_go_when_the_new_one_is_there_and_the_best_one_stays(tmp_path, monkeypatch):
    def evaluate(trainer, *args, **kwargs):
        return {"eval_mean_iou": {1: 0.2, 2: 0.9}.get(trainer.state.global_step, 0.5)}

    monkeypatch.setattr(POSTrainer, "evaluate", evaluate)
    trainer = make_trainer(
        str(tmp_path),
        "fixmatch",
        max_steps=5,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
    )
    trainer.args.eval_strategy, trainer.args.eval_steps = trainer.args.save_strategy, 1
    trainer.args.metric_for_best_model, trainer.args.greater_is_better = "mean_iou", True
    trainer.train()
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-5"]
    for step in (2, 5):
        state = json.loads((tmp_path / f"checkpoint-{step}" / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-2")
        assert find_damage(tmp_path / f"checkpoint-{step}") is None


def scored_trainer(folder: Path, monkeypatch, **arguments: Any) -> POSTrainer:
    """Three steps with a checkpoint each, of which the first scores best."""
    monkeypatch.setattr(
        POSTrainer,
        "evaluate",
        lambda trainer, *args, **kwargs: {"eval_mean_iou": 1 / trainer.state.global_step},
    )
    trainer = make_trainer(
        str(folder), "fixmatch", max_steps=3, save_strategy="steps", save_steps=1, **arguments
    )
    trainer.args.eval_strategy, trainer.args.eval_steps = trainer.args.save_strategy, 1
    trainer.args.metric_for_best_model, trainer.args.greater_is_better = "mean_iou", True
    return trainer


def test_the_best_model_is_the_best_teacher_too(tmp_path, monkeypatch):
    trainer = scored_trainer(tmp_path, monkeypatch)
    trainer.args.load_best_model_at_end = True
    trainer.train()
    best = load_file(tmp_path / "checkpoint-1" / "teacher" / "model.safetensors")
    for name, value in trainer.teacher.state_dict().items():
        assert torch.equal(value, best[name])


def test_the_checkpoint_of_a_signal_stays_beside_the_best_one(tmp_path, monkeypatch):
    callback = SignalItself(1, signal.SIGTERM)
    trainer = scored_trainer(tmp_path, monkeypatch, save_total_limit=1, callbacks=[callback])
    with pytest.raises(SystemExit):
        trainer.train()
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2"]


def test_a_step_that_is_saved_again_replaces_its_checkpoint(run):
    flip_a_bit(run / "checkpoint-3" / "model.safetensors")
    resumed = make_trainer(str(run), "fixmatch", max_steps=4, callbacks=[SaveAt((3,))])
    resumed.train(resume_from_checkpoint=str(run / "checkpoint-2"))
    assert find_damage(run / "checkpoint-3") is None
    assert names(run) == [f"checkpoint-{step}" for step in STEPS]


@pytest.mark.parametrize("size", [200, 4000, 7000], ids="{} bytes".format)
def test_a_write_that_fails_half_way_loses_nothing_older(run, size):
    resumed = make_trainer(
        str(run),
        "fixmatch",
        max_steps=4,
        callbacks=[SaveAt((4,))],
        save_total_limit=1,
        logging_strategy="no",  # what pytest captures is a file too
    )
    with files_no_larger_than(size), pytest.raises(TrainingStopped, match="checkpoint-4") as stop:
        resumed.train(resume_from_checkpoint=str(run / "checkpoint-3"))
    assert "\n" not in str(stop.value)
    assert names(run) == [f"checkpoint-{step}" for step in STEPS]
    assert all(find_damage(path) is None for path in checkpoints(run))


def test_an_export_that_fails_leaves_the_older_one(run):
    trainer = make_trainer(str(run), "fixmatch")
    trainer.save_model()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    trainer.teacher.model.head.weight.data += 1
    with files_no_larger_than(1000), pytest.raises(TrainingStopped, match="cannot be written"):
        trainer.save_model()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


class ReadOnlyFrom(TrainerCallback):
    """Makes a folder's file system read-only inside a run, which has a file of it open."""

    def __init__(self, step: int, folder: Path) -> None:
        self.step, self.folder = step, str(folder).encode()

    def on_step_begin(self, args, state, control, **kwargs):
        bind, remount, read_only = 4096, 32, 1
        if state.global_step == self.step:
            assert ctypes.CDLL(None).mount(self.folder, self.folder, None, bind, None) == 0
            flags = bind | remount | read_only
            assert ctypes.CDLL(None).mount(b"none", self.folder, None, flags, None) == 0


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_full_or_read_only_disk_is_said_in_one_sentence(tmp_path, disk):
    said = tmp_path / "said"
    run = tmp_path / "run"
    run.mkdir()

    def train() -> None:
        make_trainer(str(run), "fixmatch", max_steps=2, callbacks=[SaveAt((1,))]).train()
        (before,) = checkpoints(run)
        if disk == "full":
            free = os.statvfs(run).f_bavail * os.statvfs(run).f_frsize
            (run / "ballast").write_bytes(bytes(free - 16384))
        resumed = make_trainer(str(tmp_path), "fixmatch", max_steps=2, callbacks=[SaveAt((2,))])
        resumed.args.output_dir = str(run)
        if disk == "read-only":
            resumed.add_callback(ReadOnlyFrom(1, run))
        with pytest.raises(TrainingStopped) as stop:
            resumed.train(resume_from_checkpoint=str(before))
        assert newest_complete(run) == (before, [])
        if disk == "read-only":
            with pytest.raises(InputError, match="cannot be written"):
                make_trainer(str(run), "fixmatch").train()
        said.write_text(str(stop.value))

    _, status = os.waitpid(fork(on_a_small_disk, run, 400, train), 0)
    if os.waitstatus_to_exitcode(status) == 77:
        pytest.skip("mounting is not allowed here")
    assert "checkpoint-2 cannot be written" in said.read_text()
    assert "\n" not in said.read_text()
    assert ("Read-only" if disk == "read-only" else "0 MiB are free") in said.read_text()
