"""What must happen between the Trainer's calls: a skipped step, the teacher's update, an epoch's order."""

from typing import Any

import torch
from accelerate import Accelerator
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from pos_hf.data import PairSampler

from .state import RunState
from .teacher import broadcast_buffers


class EarlyStopping(EarlyStoppingCallback):
    """The Trainer's; a resumed run goes on counting, and does not begin again if it had stopped."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the count of the checkpoint, which the Trainer leaves at 0."""
        super().on_train_begin(args, state, control, **kwargs)
        states: Any = state.stateful_callbacks  # a dictionary by then
        saved = states.get(type(self).__name__) if state.global_step else None
        self.early_stopping_patience_counter = (
            saved["attributes"]["early_stopping_patience_counter"] if saved else 0
        )
        control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience


class KeepInStep(TrainerCallback):
    """Moves with every step what the Trainer does not know of.

    Args:
        sampler: draws another order each epoch.
        run_state: its teacher follows the student, and its skips decide which steps are taken.
        accelerator: of the run.
    """

    def __init__(self, sampler: PairSampler, run_state: RunState, accelerator: Accelerator) -> None:
        self.sampler, self.run_state, self.accelerator = sampler, run_state, accelerator

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a run too short for the method, now that its length is known."""
        self.run_state.method.require_length(state.max_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the epoch's order; the Trainer's own call is lost under DDP after a mid-epoch resume."""
        self.sampler.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keep the optimizer from a step whose gradient is not finite; fp16's scaler does so by itself."""
        skipped = self.run_state.skips.close_step(state.global_step + 1)
        if self.accelerator.scaler is not None:
            return
        self.run_state.diagnostics.add({"skipped_steps": skipped})
        if getattr(optimizer.optimizer, "_step_supports_amp_scaling", False):
            # fused kernels leave parameters and state alone where found_inf is 1, without a host sync
            optimizer.optimizer.grad_scale, optimizer.optimizer.found_inf = None, skipped
        elif skipped:  # a host sync: only the host can keep other optimizers from a step
            model.zero_grad()

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Move the teacher after a step that was taken; without one, keep BatchNorm alike over ranks."""
        if self.accelerator.optimizer_step_was_skipped:
            self.run_state.diagnostics.add({"skipped_steps": torch.ones((), device=args.device)})
        elif self.run_state.teacher:
            self.run_state.teacher.update(model, state.global_step)
        else:
            broadcast_buffers(model)
