"""What must happen between the Trainer's own calls: the sampler's epoch and the teacher's update."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .teacher import broadcast_buffers

if TYPE_CHECKING:
    from .trainer import POSTrainer


class StepHooks(TrainerCallback):
    """Keeps a trainer's sampler and teacher in step.

    Args:
        trainer: whose sampler and teacher.
    """

    def __init__(self, trainer: "POSTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a run too short for the method, now that its length is known."""
        self.trainer.method.require_length(state.max_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the epoch's order; the Trainer's own call is lost under DDP after a mid-epoch resume."""
        self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the teacher after a step that was taken; without one, keep BatchNorm alike over ranks."""
        trainer = self.trainer
        if trainer.accelerator.optimizer_step_was_skipped:
            trainer.diagnostics.add({"skipped_steps": torch.ones((), device=args.device)})
        elif trainer.teacher:
            trainer.teacher.update(trainer.model, state.global_step)
        else:
            broadcast_buffers(trainer.model)
