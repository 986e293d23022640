"""The Trainer's pushes to the Hub, with what `pos_hf.hub` allows in place of the whole output folder."""

import json
import shutil
import tempfile
from concurrent.futures import Future
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress, hf_api

from pos_hf.errors import TrainingStopped
from pos_hf.files import write_text
from pos_hf.hub import Files, evaluation_results, hub_errors, model_card, run_facts, run_files, upload
from pos_hf.hub.files import without_origin
from pos_hf.methods import METHODS, Method
from pos_hf.run_folder import (
    CARD_FILE,
    IDENTITY_FILE,
    METHOD_STATE,
    STATE_FILE,
    TEACHER_FOLDER,
    Run,
    read_runs,
)

from .arguments import POSConfig
from .checkpoints import publish

logger = get_logger(__name__)

# all that is needed to resume, of the student at the root and of the teacher; never training_args.bin, a
# pickle that holds the Hub token
RESUME_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model_fsdp*.bin",
    "optimizer.*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "window-*.safetensors",
    METHOD_STATE,
    IDENTITY_FILE,
    STATE_FILE,
)


class PushesToHub(Trainer):
    """What `push_to_hub` and `hub_strategy` of `TrainingArguments` mean for a run of a teacher and a student.

    `save_model` alone pushes nothing: a card needs the scores that are made after it.
    """

    args: POSConfig
    method: Method
    strategy_name: str
    push_in_progress: Any

    @property
    def facts(self) -> dict[str, Any]:
        """What the trainer itself knows of `pos_hf.hub.model_card.FACTS`."""
        data: Any = self.train_dataset
        names = {kind: name for name, kind in METHODS.items()}
        num_unlabeled = len(data.unlabeled) if "unsupervised" in self.method.objectives else 0
        return {
            "num_labeled": len(data.labeled),
            "num_unlabeled": num_unlabeled,
            "method": names.get(type(self.method), type(self.method).__name__),
            "strategy": self.strategy_name if num_unlabeled else "supervised",
            "seed": self.args.seed,
        }

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository of `hub_model_id`; called before training where `push_to_hub` is set.

        Raises:
            InputError: the Hub refuses, or cannot be reached.
        """
        with hub_errors(self._repository):
            super().init_hf_repo(token, private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model and upload it with its card, and its scores where the run's folder holds any.

        Args:
            commit_message: of the one commit.
            blocking: False uploads in the background; the files must then stay as they are.
            token: None takes `hub_token`, or the one that is logged in.
            revision: branch; None takes `hub_revision`.
            private: of a repository that is created; None takes `hub_private_repo`.
            kwargs: `license`, the Hub's identifier, for the card.

        Returns:
            The repository's address, or its Future; None on other ranks than the first.

        Raises:
            InputError: the Hub refuses, or cannot be reached; the run's folder is complete.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model()
        self.save_state()
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        (run,) = read_runs([Path(self.args.output_dir)])
        facts = self._facts_of(run)
        card = model_card(run, facts, self._repository, kwargs.get("license"))
        files = run_files(run.folder, card, evaluation_results(run, facts))
        job = self._upload(files, commit_message or "End of training", token, revision)
        return job.result() if blocking else job

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card into the run's folder, which holds a saved model and state.

        Args:
            args: not read; of the Trainer's method.
            kwargs: `license`, the Hub's identifier; others are not read.
        """
        if self.is_world_process_zero():
            (run,) = read_runs([Path(self.args.output_dir)])
            card = model_card(run, self._facts_of(run), self._repository, kwargs.get("license"))
            write_text(run.folder / CARD_FILE, card)

    def _facts_of(self, run: Run) -> dict[str, Any]:
        return run_facts(run) if "facts.method" in run.settings else self.facts

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload what training has reached, in the background; called after every save."""
        if self.args.hub_strategy == HubStrategy.END:
            return
        stage = Path(tempfile.mkdtemp(prefix="pos_hf_push_"))
        busy = self.is_world_process_zero() and self.push_in_progress and not self.push_in_progress.is_done()
        try:
            files = self._stage(Path(checkpoint_folder), stage, wanted=self.args.hub_always_push or not busy)
        except (OSError, TrainingStopped) as error:
            logger.warning(f"a push failed, training goes on: {error}")
            files = {}
        if not files:
            shutil.rmtree(stage)
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        job = self._upload(files, f"Training in progress, step {self.state.global_step}")

        def finish(job: Future) -> None:
            shutil.rmtree(stage)
            if error := job.exception():
                logger.warning(f"a push failed, training goes on: {error}")

        job.add_done_callback(finish)
        jobs: Any = [*(self.push_in_progress.jobs if busy else []), job]
        self.push_in_progress = PushInProgress(jobs)

    def _stage(self, checkpoint: Path, stage: Path, wanted: bool) -> Files:
        """Copy what is to be pushed, which training goes on to change; {} on other ranks than the first."""
        self.save_model(str(stage))  # on every rank, as sharded weights are gathered
        if not (wanted and self.is_world_process_zero()):
            return {}
        log: list[dict[str, Any]] = [*self.state.log_history, {"step": self.state.global_step}]
        run = Run("", stage, log, {}, {}, [], None)
        files = run_files(stage, model_card(run, self.facts, self._repository))
        if self.args.hub_strategy != HubStrategy.EVERY_SAVE:
            latest = self.args.hub_strategy == HubStrategy.CHECKPOINT
            copy = stage / ("last-checkpoint" if latest else checkpoint.name)
            copy_checkpoint(checkpoint, copy)
            files |= {path.relative_to(stage).as_posix(): path for path in copy.rglob("*.*")}
        return files

    def _upload(
        self, files: Files, message: str, token: str | None = None, revision: str | None = None
    ) -> Future:
        """Upload in the Hub library's one background thread, so that commits keep their order."""
        return hf_api().run_as_future(
            upload,
            files,
            self._repository,
            message=message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
        )

    @property
    def _repository(self) -> str:
        """The repository's full name once it is known to exist, before that what the user called it."""
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name


def copy_checkpoint(checkpoint: Path, copy: Path) -> None:
    """Copy what is needed to resume; the checkpoint itself may be rotated away before it is uploaded.

    Args:
        checkpoint: a complete checkpoint.
        copy: made here, a complete checkpoint without what must not leave this machine.
    """
    written = copy.with_name("written")
    for path in (path for folder in (".", TEACHER_FOLDER) for path in (checkpoint / folder).glob("*")):
        if not any(fnmatch(path.name, pattern) for pattern in RESUME_FILES):
            continue
        target = written / path.relative_to(checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "config.json":
            target.write_text(without_origin(path.read_text()))
        elif path.name == STATE_FILE:
            state = json.loads(path.read_text()) | {"best_model_checkpoint": None}  # a path of this machine
            target.write_text(json.dumps(state, indent=2))
        else:
            shutil.copy2(path, target)
    publish(written, copy)
