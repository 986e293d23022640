"""Kills a training run at seeded random moments and lets it go on each time, in forked processes.

usage: python -m tests.launching tests.training.killing OUT NUM_KILLS

OUT/report.json says what every kill met. torch keeps one thread, so that a fork is a whole copy.
"""

import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tqdm
from transformers import TrainerCallback
from transformers.utils.logging import disable_progress_bar

from pos_hf.training.checkpoints import MANIFEST, checkpoints, newest_complete

from .resuming import digests, make_trainer

NUM_STEPS = 60
STEP, WRITE = b"s", b"w"
SLOWER = 2.5  # the first step and write of a life than the mean, about


class Announce(TrainerCallback):
    """Waits for leave to begin each step, and says when a step begins and when it ends and is written.

    Args:
        leave: pipe with a byte for each step that may be taken.
        events: pipe that is told.
    """

    def __init__(self, leave: int, events: int) -> None:
        self.leave, self.events = leave, events

    def on_step_begin(self, args, state, control, **kwargs):
        os.read(self.leave, 1)
        os.write(self.events, STEP)

    def on_step_end(self, args, state, control, **kwargs):
        os.write(self.events, WRITE)


def train(run: Path, announce: Announce, limit: int | None) -> None:
    """Go on with a run, saving at every step, and write its end's digests."""
    checkpoint, _ = newest_complete(run)
    trainer = make_trainer(
        str(run),
        "fixmatch",
        callbacks=[announce],
        max_steps=NUM_STEPS,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=limit,
    )
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    (run / "digests.json").write_text(json.dumps(digests(trainer)))


def fork(function: Callable[..., None], *arguments: object) -> int:
    """Start a function in a copy of this process, which ends with it; returns the process id."""
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # a copy of a process with threads could wait for one of them for ever
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def live(
    run: Path, num_steps: int, death: tuple[bytes, float] | None = None, limit: int | None = None
) -> tuple[int, list[tuple[bytes, float]]]:
    """One life of a run, of no more than so many steps however little of the machine it gets.

    Args:
        run: its folder.
        num_steps: that it may take.
        death: the event of the last of these steps, and the seconds after it at which the run is killed; None
            lets it end.
        limit: checkpoints to keep.

    Returns:
        The exit code (minus the signal's number), and every event with its time in seconds.
    """
    leave, give_leave = os.pipe()
    ears, mouth = os.pipe()
    os.write(give_leave, b"." * num_steps)
    child = fork(train, run, Announce(leave, mouth), limit)
    os.close(mouth)
    events: list[tuple[bytes, float]] = []
    while event := os.read(ears, 1):
        events.append((event, time.monotonic()))
        if death and [name for name, _ in events].count(death[0]) == num_steps:
            time.sleep(death[1])
            os.kill(child, signal.SIGKILL)
            break
    for pipe in (leave, give_leave, ears):
        os.close(pipe)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), events


def contents(checkpoint: Path) -> dict[str, str]:
    """The manifest's digest of each file of a checkpoint but the arguments, which name the run's folder."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    return {name: entry["sha256"] for name, entry in manifest.items() if name != "training_args.bin"}


def main(folder: str, kills_wanted: str) -> None:
    out, num_kills = Path(folder), int(kills_wanted)
    torch.set_num_threads(1)
    disable_progress_bar()
    tqdm.tqdm.monitor_interval = 0  # its thread would hold locks
    make_trainer(str(out / "warm"), "fixmatch", max_steps=1, save_strategy="steps", save_steps=1).train()
    gc.collect()
    gc.freeze()

    whole, killed = out / "whole", out / "killed"
    code, events = live(whole, NUM_STEPS)
    assert code == 0
    names, times = zip(*events, strict=True)
    assert names == (STEP, WRITE) * NUM_STEPS
    seconds = {STEP: np.diff(times)[::2].mean(), WRITE: np.diff(times)[1::2].mean()}
    expected = {path.name: contents(path) for path in checkpoints(whole)}
    kills = []
    rng = np.random.default_rng(0)
    # lives of one step, some of two, so that together they fall short of the end
    lengths = rng.permutation(1 + (np.arange(num_kills) < NUM_STEPS - 1 - num_kills))
    for length, share, event in zip(
        lengths, rng.uniform(size=num_kills), rng.choice([STEP, WRITE], num_kills), strict=True
    ):
        code, _ = live(killed, int(length), (event, share * SLOWER * seconds[event]), limit=2)
        newest, skipped = newest_complete(killed)
        kills.append(
            {
                "code": code,
                "newest": newest and newest.name,
                "as_uninterrupted": newest is None or contents(newest) == expected[newest.name],
                "skipped": skipped,
                "while_writing": bool(skipped),
            }
        )
    code, _ = live(killed, NUM_STEPS, limit=2)
    ends = [json.loads((run / "digests.json").read_text()) for run in (whole, killed)]
    report = {
        "kills": kills,
        "last_code": code,
        "ends": ends,
        "left": sorted(path.name for path in killed.iterdir()),
    }
    (out / "report.json").write_text(json.dumps(report))
