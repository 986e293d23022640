"""Checkpoints that are complete or absent: what is in one, and which of a run's to resume from."""

import contextlib
import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from transformers.utils import SAFE_WEIGHTS_NAME

from pos_hf.files import (
    INCOMPLETE,
    MANIFEST,
    changed_file,
    explained,
    read_manifest,
    sync,
    write_manifest,
    written_aside,
)
from pos_hf.locks import check_held, locked
from pos_hf.methods import Method
from pos_hf.run_folder import METHOD_STATE, TEACHER_FOLDER
from pos_hf.workers import outlive_sigterm

from .arguments import POSConfig
from .diagnostics import Diagnostics
from .identity import refuse_another_run, write_identity
from .signals import StopOnSignal
from .teacher import EMATeacher

NEEDED = (TRAINER_STATE_NAME, "optimizer*", "scheduler.pt", "rng_state*", "window-*", METHOD_STATE)
"""Without one of these the Trainer goes on, from a fresh state."""


def publish(written: Path, checkpoint: Path) -> None:
    """Give a written folder its checkpoint's name once its manifest (sizes, SHA-256) and all else is on disk.

    Args:
        written: everything but the manifest; in the scratch folder of the same file system.
        checkpoint: its name from then on; a checkpoint that has this name already is replaced.
    """
    write_manifest(written)
    sync(written)
    if checkpoint.exists():
        checkpoint.rename(written.with_name("replaced"))
    written.rename(checkpoint)
    sync(checkpoint.parent, recursive=False)


def find_damage(checkpoint: Path) -> str | None:
    """Compare a checkpoint with its manifest.

    Args:
        checkpoint: its folder.

    Returns:
        What is wrong with it, for a sentence; None for a complete checkpoint.
    """
    manifest = read_manifest(checkpoint)
    if manifest is None:
        if (checkpoint / MANIFEST).exists():
            return f"its {MANIFEST} cannot be read"
        return f"it has no {MANIFEST}, which is written last"
    for pattern in NEEDED:
        if not any(fnmatch(name, pattern) for name in manifest):
            return f"its {MANIFEST} lists no {pattern}"
    return changed_file(checkpoint, manifest)


def newest_complete(run: Path) -> tuple[Path | None, list[str]]:
    """Look for the checkpoint to go on from.

    Args:
        run: a run's folder.

    Returns:
        The complete checkpoint of the highest step, or None; and of each newer one why it is not complete.
    """
    skipped: list[str] = []
    for path in sorted([*checkpoints(run), *checkpoints(run / INCOMPLETE)], key=step_of, reverse=True):
        damage = find_damage(path) if path.parent == run else "the run ended while it was written"
        if damage is None:
            return path, skipped
        skipped.append(f"{path.name}: {damage}")
    return None, skipped


def checkpoints(folder: Path) -> list[Path]:
    """The folders named checkpoint-N in a folder, in the order of their steps N."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")
    found = folder.iterdir() if folder.is_dir() else []
    return sorted((path for path in found if pattern.fullmatch(path.name) and path.is_dir()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number at the end of a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def rotate(newest: Path, best: str | None, limit: int | None) -> None:
    """Remove a run's checkpoints of the lowest steps; a kill leaves none half removed under its name.

    Args:
        newest: the checkpoint just written, which stays.
        best: one more that stays.
        limit: how many stay in all; None or 0 for every one.
    """
    kept = {newest.name, *([Path(best).name] if best else [])}
    others = [path for path in checkpoints(newest.parent) if path.name not in kept]
    allowed = max(limit - len(kept), 0) if limit else len(others)
    for path in others[: max(len(others) - allowed, 0)]:
        removed = newest.parent / INCOMPLETE / path.name
        removed.parent.mkdir(exist_ok=True)
        path.rename(removed)
    shutil.rmtree(newest.parent / INCOMPLETE, ignore_errors=True)


class CheckpointedTrainer(Trainer):
    """A Trainer whose checkpoints hold all that `POSTrainer` needs to go on as if it had not stopped."""

    args: POSConfig
    teacher: EMATeacher | None
    method: Method
    diagnostics: Diagnostics
    identity: dict[str, Any]
    """What a run must have in common with the one that wrote the checkpoint it goes on from."""
    _skipped_in_a_row: Tensor
    _longest_skip: Tensor
    _writing_aside = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop = StopOnSignal()
        self.add_callback(self.stop)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train as the Trainer does; a SIGTERM or SIGINT ends training with a checkpoint.

        Args:
            resume_from_checkpoint: a checkpoint's folder, or True for the newest complete one of the run.
            args: of `Trainer.train`.
            kwargs: of `Trainer.train`.

        Returns:
            What the Trainer returns.

        Raises:
            InputError: another process trains in this folder, or the checkpoint is of another run.
            SystemExit: a signal came; the code is 128 + its number (143, 130), as of a process it killed.
        """
        folder = Path(self.args.output_dir)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(newest_complete(folder)[0] or "") or True
        if isinstance(resume_from_checkpoint, str | Path):
            refuse_another_run(self.identity, Path(resume_from_checkpoint))
        lock = locked(folder) if self.args.should_save else contextlib.nullcontext()
        with lock, self.stop.listening():
            output = super().train(resume_from_checkpoint, *args, **kwargs)
        if self.stop.signal:
            raise SystemExit(128 + self.stop.signal)
        return output

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's, with workers that a scheduler's signal does not end before the run does."""
        loader: Any = super().get_train_dataloader()
        # in place of a seed for the workers' random numbers: every view is a function of its key
        loader.base_dataloader.worker_init_fn = outlive_sigterm
        return loader

    # ---- Complete or absent ----

    def _get_output_dir(self, trial: Any) -> str:
        folder: str = super()._get_output_dir(trial)
        return os.path.join(folder, INCOMPLETE) if self._writing_aside else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run = Path(self._get_output_dir(trial))
        checkpoint = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        aside = run / INCOMPLETE
        with explained(checkpoint):
            if self.args.should_save:
                check_held(Path(self.args.output_dir))
                shutil.rmtree(aside, ignore_errors=True)  # what a killed run left
            self.accelerator.wait_for_everyone()
            try:
                self._writing_aside = True
                super()._save_checkpoint(model, trial)
                self._name_best_checkpoint(aside / checkpoint.name, checkpoint)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    publish(aside / checkpoint.name, checkpoint)
            finally:
                self._writing_aside = False
                if self.args.should_save:
                    shutil.rmtree(aside, ignore_errors=True)
            self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(checkpoint))
        if self.args.should_save:
            rotate(checkpoint, self.state.best_model_checkpoint, self.args.save_total_limit)

    def save_state(self) -> None:
        """Write the run's trainer_state.json, which holds its log, in one piece."""
        if self.is_world_process_zero():
            with written_aside(Path(self.args.output_dir)) as aside:
                self.state.save_to_json(str(aside / TRAINER_STATE_NAME))

    def _name_best_checkpoint(self, written: Path, checkpoint: Path) -> None:
        if self.state.best_model_checkpoint != str(written):
            return
        self.state.best_model_checkpoint = str(checkpoint)
        if self.args.should_save:
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # the Trainer asks for it before the checkpoint has its name
        if not self._writing_aside:
            super()._push_from_checkpoint(checkpoint_folder)

    def _finalize_training(self, *args: Any) -> TrainOutput:
        if self.stop.signal:
            # the Trainer would keep the best checkpoint alone, and lose what the signal had saved
            best, self.state.best_model_checkpoint = self.state.best_model_checkpoint, None
            output = super()._finalize_training(*args)
            self.state.best_model_checkpoint = best
            return output
        return super()._finalize_training(*args)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.teacher:
            best = Path(self.state.best_model_checkpoint or "")
            self.teacher.load_state_dict(load_file(best / TEACHER_FOLDER / SAFE_WEIGHTS_NAME))

    # ---- What is in a checkpoint beside the Trainer's own ----

    def _export(self, model: PreTrainedModel, folder: Path) -> None:
        raise NotImplementedError

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.teacher:
            self._export(self.teacher.model, Path(output_dir) / TEACHER_FOLDER)
        if self.args.should_save:
            save_file(self.method.state_dict(), Path(output_dir) / METHOD_STATE)
            write_identity(self.identity, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        if self.teacher:
            self.teacher.load_state_dict(load_file(folder / TEACHER_FOLDER / SAFE_WEIGHTS_NAME))
        self.method.load_state_dict(load_file(folder / METHOD_STATE))

    @property
    def _window_file(self) -> str:
        # a run resumed on another number of processes starts a new window on all of them
        return f"window-{self.args.process_index}-of-{self.args.world_size}.safetensors"

    def _save_rng_state(self, output_dir: str) -> None:
        """Save what each rank holds for itself: its random numbers, and the sums of the unfinished log."""
        super()._save_rng_state(output_dir)
        window = {
            "loss": self._tr_loss,
            "last_logged_step": torch.tensor(self._globalstep_last_logged),
            "skipped_in_a_row": self._skipped_in_a_row,
            "longest_skip": self._longest_skip,
        }
        sums = {f"sums/{name}": values for name, values in self.diagnostics.state_dict().items()}
        save_file(window | sums, Path(output_dir) / self._window_file)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is None or not (Path(checkpoint) / self._window_file).exists():
            return
        saved = load_file(Path(checkpoint) / self._window_file)
        window = {name: value.to(self.args.device) for name, value in saved.items()}
        self._tr_loss = window.pop("loss")
        self._globalstep_last_logged = int(window.pop("last_logged_step"))
        # train_loss stays the mean over the steps of this call to train
        self._total_loss_scalar = -self._tr_loss.item()
        self._skipped_in_a_row = window.pop("skipped_in_a_row")
        self._longest_skip = window.pop("longest_skip")
        self.diagnostics.load_state_dict({name.removeprefix("sums/"): sums for name, sums in window.items()})
