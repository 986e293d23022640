"""SIGTERM and SIGINT: training stops at a step boundary, on every rank at the same. Saving is elsewhere."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# a scheduler that signals every process and a launcher that passes its own on send two for one
GRACE_SECONDS = 2.0


class StopOnSignal(TrainerCallback):
    """Saves a checkpoint and ends training at the next step boundary after the first signal.

    Ranks agree by one message a step, of a CPU tensor in the background, which is read one step later: no
    step waits for the accelerator or, as long as ranks are within a step of one another, for another rank.
    So with several processes it is the boundary after the next. An evaluation that is due at this very step
    is left out: schedulers grant seconds.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The signal that arrived here or at another rank, 0 without one."""
        self._arrived = 0.0
        self._stopping = False
        self._group: Any = None
        self._message: tuple[Tensor, Any] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over for the length of a block (only a main thread can)."""
        self.signal = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, partial(self._note, os.getpid())) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, process: int, number: int, frame: Any) -> None:
        if self.signal and time.monotonic() - self._arrived > GRACE_SECONDS:
            os._exit(128 + number)
        if not self.signal:
            self.signal, self._arrived = number, time.monotonic()
            # the data's workers are copies of this process, with this handler
            if os.getpid() == process:
                # not print, which must not be entered twice
                os.write(2, b"stopping after this step, with a checkpoint; a second signal exits at once\n")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the ranks' own channel, apart from the accelerator's."""
        if args.world_size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint and the end of training once every rank knows of the signal."""
        self._stopping = self._agreed()
        if self._stopping:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The Trainer ends the epoch that it leaves: the checkpoint is written, and nothing may follow it."""
        if self._stopping:
            control.should_log = control.should_evaluate = control.should_save = False
            # the Trainer would keep the best checkpoint alone, and lose what the signal had saved
            state.best_model_checkpoint = None

    def _agreed(self) -> bool:
        if self._group is None:
            return bool(self.signal)
        earlier = self._message
        number = torch.tensor(self.signal)
        self._message = number, dist.all_reduce(number, dist.ReduceOp.MAX, self._group, async_op=True)
        if earlier is None:
            return False
        number, work = earlier
        work.wait()
        self.signal = self.signal or int(number)
        return bool(number)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the last message, which nobody has waited for, and close the channel."""
        if self._message is not None:
            number, work = self._message
            work.wait()
            self.signal = self.signal or int(number)
            self._message = None
        if self._group is not None:
            # its workers may still hold a tensor, which aborts a process that exits at once; this joins them
            dist.destroy_process_group(self._group)
            self._group = None
