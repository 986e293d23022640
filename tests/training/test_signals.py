"""SIGTERM and SIGINT end a run at a step boundary with a checkpoint, from which it goes on exactly."""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from transformers import TrainerCallback

from pos_hf.training import signals
from pos_hf.training.checkpoints import checkpoints, find_damage
from tests.launching import command_of

from .killing import fork
from .resuming import digests, make_trainer
from .stopping import SignalItself


class SignalWorkers(TrainerCallback):
    """SIGTERM to every process of a job, as a scheduler sends it, inside the third step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            processes = [*multiprocessing.active_children(), multiprocessing.current_process()]
            # from a process that is not theirs: torch's workers obey their parent in any case
            subprocess.run(["kill", "-TERM", *(str(process.pid) for process in processes)], check=True)


def stopped(folder: Path, *callbacks: TrainerCallback, **arguments: object) -> int:
    """Train until a signal ends it; the exit code."""
    with pytest.raises(SystemExit) as end:
        make_trainer(str(folder), "unimatch_v2", callbacks=[*callbacks], **arguments).train()
    return end.value.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, number):
    before = signal.getsignal(number)
    assert stopped(tmp_path, SignalItself(2, number), logging_steps=4) == 128 + number
    assert signal.getsignal(number) is before
    (checkpoint,) = checkpoints(tmp_path)
    assert checkpoint.name == "checkpoint-3"  # the end of the step in which it came
    ends = []
    for start in (None, str(checkpoint)):
        trainer = make_trainer(str(tmp_path), "unimatch_v2")
        trainer.train(resume_from_checkpoint=start)
        ends.append(digests(trainer))
    assert ends[0] == ends[1]


def test_a_signal_that_a_launcher_doubles_still_saves(tmp_path):
    assert stopped(tmp_path, SignalItself(2, signal.SIGTERM, signal.SIGTERM)) == 143
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3"]


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_nothing_follows_the_checkpoint(tmp_path, strategy):
    stop = SignalItself(2, signal.SIGTERM)
    assert stopped(tmp_path, stop, save_strategy=strategy, logging_strategy="epoch") == 143
    (checkpoint,) = checkpoints(tmp_path)
    assert find_damage(checkpoint) is None
    assert json.loads((checkpoint / "trainer_state.json").read_text())["log_history"] == []


def test_a_signal_to_the_data_workers_too_does_not_take_the_batches_away(tmp_path):
    assert stopped(tmp_path, SignalWorkers(), dataloader_num_workers=2) == 143
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3"]


def test_a_second_signal_exits_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "GRACE_SECONDS", -1.0)

    def train() -> None:
        callback = SignalItself(2, signal.SIGTERM, signal.SIGINT)
        make_trainer(str(tmp_path), "unimatch_v2", callbacks=[callback]).train()

    _, status = os.waitpid(fork(train), 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert checkpoints(tmp_path) == []


@pytest.mark.slow
def test_ranks_stop_at_the_same_step_whoever_gets_the_signal(tmp_path):
    command, options = command_of("tests.training.stopping", tmp_path, processes=2)
    launcher = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "ready").exists() and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    launcher.terminate()
    _, errors = launcher.communicate()
    ends = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert ends[0] == ends[1], errors
    (by_one, step, _), (by_launcher, _, groups) = ends[0]
    assert (by_one, by_launcher) == (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert groups == 1  # the ranks' own channels are closed
    assert step == 5  # the signal came inside the fourth step; all ranks know it a step later
    for run in ("inside", "outside"):
        (checkpoint,) = checkpoints(tmp_path / run)
        assert find_damage(checkpoint) is None
        assert {"rng_state_0.pth", "rng_state_1.pth"} < {path.name for path in checkpoint.iterdir()}
