"""Two runs in this process's layout: a signal to rank 1 alone ends the first, one from outside the second.

usage: python -m tests.launching tests.training.stopping OUT

OUT/RANK.json gets (exit code, step, open process groups) of both. OUT/ready: the second run trains.
"""

import json
import os
import signal
import time
from pathlib import Path

from torch.distributed import distributed_c10d
from transformers import TrainerCallback

from .resuming import make_trainer

RANK = int(os.environ.get("RANK", 0))


class SignalItself(TrainerCallback):
    """Sends this process a signal inside a step, several times over."""

    def __init__(self, step: int, *numbers: signal.Signals) -> None:
        self.step = step
        self.numbers = numbers

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)


class Wait(TrainerCallback):
    """Trains slowly, and says so."""

    def __init__(self, ready: Path) -> None:
        self.ready = ready

    def on_step_end(self, args, state, control, **kwargs):
        self.ready.touch()
        time.sleep(0.05)


def main(folder: str) -> int:
    out = Path(folder)
    by_itself = [SignalItself(3, signal.SIGINT)] if RANK == 1 else []
    ends = []
    for name, callbacks, steps in (("inside", by_itself, 20), ("outside", [Wait(out / "ready")], 2000)):
        trainer = make_trainer(
            str(out / name),
            "unimatch_v1",
            callbacks=callbacks,
            per_device_train_batch_size=2,
            max_steps=steps,
            dataloader_num_workers=1,
        )
        try:
            trainer.train()
        except SystemExit as end:
            ends.append((end.code, trainer.state.global_step, len(distributed_c10d._world.pg_map)))
    (out / f"{RANK}.json").write_text(json.dumps(ends))
    return ends[-1][0]
