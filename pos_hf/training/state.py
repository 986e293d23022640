"""`RunState`: what a run has reached beside its student, optimizer and schedule, which the Trainer saves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from pos_hf.methods import Method
from pos_hf.run_folder import METHOD_STATE, TEACHER_FOLDER

from .arguments import POSConfig
from .diagnostics import Diagnostics
from .guards import SkippedSteps
from .identity import write_identity
from .teacher import EMATeacher


@dataclass
class RunState:
    """Saved into every checkpoint, and loaded from the one that a run goes on from.

    Args:
        teacher: of a method that has one.
        method: whose buffers are the state of its confidence rule.
        diagnostics: with the sums of the log that has begun.
        skips: with the steps in a row that were not taken.
        identity: what a run must have in common with the one that wrote the checkpoint.
    """

    teacher: EMATeacher | None
    method: Method
    diagnostics: Diagnostics
    skips: SkippedSteps
    identity: dict[str, Any]

    def save(
        self,
        folder: Path,
        args: POSConfig,
        export: Callable[[PreTrainedModel, Path], None],
        loss: Tensor,
        last_logged_step: int,
    ) -> None:
        """Write all of it beside what the Trainer has written; every rank must call.

        Args:
            folder: of the checkpoint, which exists.
            args: of the run.
            export: writes a model that may be sharded.
            loss: sum of the log that has begun, 0-d.
            last_logged_step: after which it began.
        """
        if self.teacher:
            export(self.teacher.model, folder / TEACHER_FOLDER)
        if args.should_save:
            save_file(self.method.state_dict(), folder / METHOD_STATE)
            write_identity(self.identity, folder)
        window = {
            "loss": loss,
            "last_logged_step": torch.tensor(last_logged_step),
            "skipped_in_a_row": self.skips.in_a_row,
            "longest_skip": self.skips.longest,
        }
        sums = {f"sums/{name}": values for name, values in self.diagnostics.state_dict().items()}
        save_file(window | sums, window_file(folder, args))

    def load(self, folder: Path) -> None:
        """Restore teacher and method from a checkpoint.

        Args:
            folder: of the checkpoint.
        """
        self.load_teacher(folder)
        self.method.load_state_dict(load_file(folder / METHOD_STATE))

    def load_teacher(self, folder: Path) -> None:
        """The teacher alone, where there is one."""
        if self.teacher:
            self.teacher.load_state_dict(load_file(folder / TEACHER_FOLDER / SAFE_WEIGHTS_NAME))

    def load_window(self, folder: Path, args: POSConfig) -> tuple[Tensor, int] | None:
        """Restore the sums that this rank had begun.

        Args:
            folder: of the checkpoint.
            args: of the run.

        Returns:
            Sum of the losses and the step last logged; None where another number of processes wrote them.
        """
        if not window_file(folder, args).exists():
            return None
        window = {name: value.to(args.device) for name, value in load_file(window_file(folder, args)).items()}
        loss, last_logged_step = window.pop("loss"), int(window.pop("last_logged_step"))
        self.skips.in_a_row = window.pop("skipped_in_a_row")
        self.skips.longest = window.pop("longest_skip")
        self.diagnostics.load_state_dict({name.removeprefix("sums/"): sums for name, sums in window.items()})
        return loss, last_logged_step


def window_file(folder: Path, args: POSConfig) -> Path:
    """Where a rank keeps its sums; on another number of processes all of them begin anew."""
    return folder / f"window-{args.process_index}-of-{args.world_size}.safetensors"
