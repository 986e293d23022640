"""Kills a training run at seeded random moments and lets it go on each time, in forked processes.

usage: python -m tests.training.killing OUT NUM_KILLS

OUT/report.json says what every kill met. torch keeps one thread, so that a fork is a whole copy.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tqdm
from transformers import TrainerCallback
from transformers.utils.logging import disable_progress_bar

from pos_hf.files import INCOMPLETE
from pos_hf.training.checkpoints import MANIFEST, checkpoints, newest_complete

from .resuming import digests, make_trainer

NUM_STEPS = 60
CYCLES_TO_LIVE = 2.0  # a life ends at most so many steps, each with its checkpoint, after its first


class Announce(TrainerCallback):
    """Says through a pipe that the first step begins."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_begin(self, args, state, control, **kwargs):
        os.write(self.pipe, b"!")


def train(run: Path, pipe: int, limit: int | None) -> None:
    """Go on with a run, saving at every step, and write its end's digests."""
    checkpoint, _ = newest_complete(run)
    trainer = make_trainer(
        str(run),
        "fixmatch",
        callbacks=[Announce(pipe)],
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


def live(run: Path, seconds: float | None, limit: int | None = None) -> tuple[int, float]:
    """One life of a run, killed so many seconds after training begins; None lets it end.

    Returns:
        The exit code (minus the signal's number), and how many seconds training took.
    """
    ears, mouth = os.pipe()
    child = fork(train, run, mouth, limit)
    os.close(mouth)
    os.read(ears, 1)
    os.close(ears)
    start = time.monotonic()
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - start


def contents(checkpoint: Path) -> dict[str, str]:
    """The manifest's digest of each file of a checkpoint but the arguments, which name the run's folder."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    return {name: entry["sha256"] for name, entry in manifest.items() if name != "training_args.bin"}


def main(out: Path, num_kills: int) -> None:
    torch.set_num_threads(1)
    disable_progress_bar()
    tqdm.tqdm.monitor_interval = 0  # its thread would hold locks
    make_trainer(str(out / "warm"), "fixmatch", max_steps=1, save_strategy="steps", save_steps=1).train()
    gc.collect()
    gc.freeze()

    whole, killed = out / "whole", out / "killed"
    code, seconds = live(whole, None)
    assert code == 0
    expected = {path.name: contents(path) for path in checkpoints(whole)}
    kills = []
    for share in np.random.default_rng(0).uniform(size=num_kills):
        code, _ = live(killed, share * CYCLES_TO_LIVE * seconds / NUM_STEPS, limit=2)
        newest, skipped = newest_complete(killed)
        kills.append(
            {
                "code": code,
                "newest": newest and newest.name,
                "as_uninterrupted": newest is None or contents(newest) == expected[newest.name],
                "skipped": skipped,
                "while_writing": any((killed / INCOMPLETE).glob("*")),
            }
        )
    code, _ = live(killed, None, limit=2)
    ends = [json.loads((run / "digests.json").read_text()) for run in (whole, killed)]
    report = {
        "kills": kills,
        "last_code": code,
        "ends": ends,
        "left": sorted(path.name for path in killed.iterdir()),
    }
    (out / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
