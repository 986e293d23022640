"""`POSTrainer`: a Trainer whose step integrates two gradients. Losses and strategies live in their rooms."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Sampler
from transformers import BaseImageProcessor, PreTrainedModel, PrinterCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from pos_hf.balancing import Strategy
from pos_hf.data import PairedDataset, collate
from pos_hf.data.device_views import NormalisedBatch
from pos_hf.locks import locked
from pos_hf.methods import LossTerm, Method, StudentPair
from pos_hf.models.freezing import find_backbone, frozen_parts
from pos_hf.models.processors import statistics
from pos_hf.workers import outlive_sigterm

from .arguments import POSConfig
from .callbacks import EarlyStopping, KeepInStep
from .checkpoints import newest_complete, rotate, sealed
from .console import RunConsole
from .diagnostics import Diagnostics
from .evaluating import run_in_mixed_precision
from .guards import SkippedSteps, count_bad_samples, warn_of_spike
from .identity import facts_of, identity_of, refuse_another_run
from .integration import Integration
from .optimizer import make_optimizer
from .signals import StopOnSignal
from .state import RunState
from .teacher_student import TeacherStudentTrainer
from .weight_names import own_names, refuse_other_names


class POSTrainer(TeacherStudentTrainer):
    """Trains a student on labeled and unlabeled images, with both objectives' gradients integrated (Eq. 4).

    Args:
        model: the student; any `PreTrainedModel` for semantic segmentation whose output has `.logits`.
        args: the run's arguments.
        train_dataset: pairs of a labeled and an unlabeled image; told which views the method needs.
        eval_dataset: rows of `id`, `image`, `mask`, scored at native size, or several such by name.
        processing_class: the image processor; its mean and standard deviation normalise the training views.
        data_collator: items of `train_dataset` -> a batch of the same groups of tensors.
        method: how the two losses are made; None takes `args.method`.
        strategy: Gramian -> (w_s, w_u), 0-d tensors; None takes `args.strategy`.
        kwargs: further arguments of `transformers.Trainer`: callbacks, optimizers, optimizer_cls_and_kwargs.

    Raises:
        InputError: the engine or an argument cannot give exact gradients, or an argument has no meaning here.
    """

    optimizer: Any
    # Our losses are means over a micro-batch; the integration divides them itself.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | StudentPair,
        args: POSConfig,
        train_dataset: PairedDataset,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        *,
        processing_class: BaseImageProcessor | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] = collate,
        method: Method | None = None,
        strategy: Strategy | None = None,
        **kwargs: Any,
    ) -> None:
        data = train_dataset, eval_dataset, processing_class, data_collator
        super().__init__(model, args, *data, method, **kwargs)
        self.sampler = self.train_dataset.sampler(args.seed if args.data_seed is None else args.data_seed)
        self.device_batch = NormalisedBatch(*statistics(self.processing_class), args.device)
        self.frozen_parts = frozen_parts(self.model)
        self.diagnostics = Diagnostics()
        self.skips = SkippedSteps(self.method.objectives, args, self.accelerator, self.train_dataset)
        watchers = self.diagnostics, self.skips.record
        self.integration = Integration(
            strategy or args.get_strategy(), self.method, args, self.accelerator, *watchers
        )
        name = getattr(strategy, "__name__", type(strategy).__name__) if strategy else args.strategy
        self.facts = facts_of(self.method, name, self.train_dataset, args.seed)
        self.identity = identity_of(args, self.method, self.exported_model, self.processing_class, self.facts)
        self.run_state = RunState(self.teacher, self.method, self.diagnostics, self.skips, self.identity)
        self.console = RunConsole(args.console)
        for printing in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
            self.remove_callback(printing)
        self.add_callback(self.console)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(args.early_stopping_patience))
        self.stop = StopOnSignal()
        self.add_callback(self.stop)
        self.add_callback(KeepInStep(self.sampler, self.run_state, self.accelerator))

    # ---- One training step ----

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run the method's losses one by one, each with its own backward, and integrate their gradients.

        Args:
            model: the student, wrapped for the engine.
            inputs: a collated batch, uint8.
            num_items_in_batch: unused; every loss is a mean over the micro-batch.

        Returns:
            The mean of the objectives' losses, divided by the number of micro-batches; 0-d, detached.
        """
        self.set_training(model)
        batch = self.device_batch(self._prepare_inputs(inputs))
        micro_batches = self.current_gradient_accumulation_steps
        losses = {objective: torch.zeros((), device=self.args.device) for objective in self.method.objectives}
        statistics: dict[str, Tensor] = {}
        with self.integration.reduction_context(model):
            for term in self.loss_terms(model, batch):
                self.integration.backward(term, micro_batches)
                losses[term.objective] += term.loss.detach()
                statistics |= term.statistics
        statistics |= count_bad_samples(batch, self.args.world_size)
        self.diagnostics.add(statistics | {f"{name}_loss": loss for name, loss in losses.items()})
        self.skips.record.add(list(losses.values()), batch["unlabeled"]["key"])
        if self.accelerator.sync_gradients:
            self.integration.combine(self.state.global_step, self.state.max_steps)
        return torch.stack(list(losses.values())).mean() / micro_batches

    def set_training(self, model: nn.Module) -> None:
        """Put the student into training mode, but for its frozen parts."""
        model.train()
        for part in self.frozen_parts:
            part.eval()

    def loss_terms(self, model: nn.Module, batch: dict[str, Any]) -> Iterator[LossTerm]:
        """The method's losses of a batch on the device, at the share of the steps that is done."""
        self.method.progress = self.state.global_step / self.state.max_steps
        return self.method.losses(model, self.teacher.model if self.teacher else None, batch)

    # ---- The Trainer's private methods that are overridden, where it has no public hook ----

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        """Pairs are drawn by keys, which no sampler of the Trainer's makes."""
        return self.sampler

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None
    ) -> Any:
        """Once the student is wrapped the teacher is loaded, then sharded; and the gradients have a place."""
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if resume_from_checkpoint is not None:
            self.run_state.load(Path(resume_from_checkpoint))
        if self.teacher:
            if self.is_fsdp_enabled:
                self.teacher.model = fsdp2_prepare_model(self.accelerator, self.teacher.model)
                # without a backward its root would stay whole, which the update cannot blend with shards
                self.teacher.model.set_reshard_after_forward(True)
            run_in_mixed_precision(self.teacher.model, self.accelerator)
        self.integration.prepare(self.model, self.optimizer)
        return prepared

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """A run that has ended takes no further step when it is resumed."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | None = None) -> Tensor:
        """The Gramian has told the update's norm: another pass over the gradients is saved."""
        norm = self.integration.norm if grad_norm is None else grad_norm
        self.integration.norm = None
        if norm is None:
            norm = super()._get_grad_norm(model)
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.skips.norm = norm  # which decides, before the optimizer, whether the step is taken
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint holds `run_state` too, and counts from the moment that its manifest is written."""
        self._stop_if_not_finite(self.args.max_skipped_steps)
        checkpoint = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        window = self._tr_loss, self._globalstep_last_logged
        with sealed(checkpoint, self.args, self.accelerator), own_names(*self.networks):
            super()._save_checkpoint(model, trial)
            self.run_state.save(checkpoint, self.args, self._export, *window)
        if self.args.should_save:
            rotate(checkpoint, self.state.best_model_checkpoint, self.args.save_total_limit)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """With the random numbers come the sums of the log that had begun, which the Trainer forgets."""
        super()._load_rng_state(checkpoint)
        window = self.run_state.load_window(Path(checkpoint or ""), self.args)
        if window is not None:
            self._tr_loss, self._globalstep_last_logged = window
            # train_loss stays the mean over the steps of this call to train
            self._total_loss_scalar = -self._tr_loss.item()

    # ---- Around the step ----

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """As the Trainer's; True is the newest complete checkpoint, and a SIGTERM or SIGINT leaves one.

        Raises:
            InputError: another process trains in this folder, or the checkpoint is of another run.
            TrainingStopped: the numbers are not finite, or the disk is full.
            SystemExit: a signal came; the code is 128 + its number (143, 130), as of a process it killed.
        """
        folder = Path(self.args.output_dir)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(newest_complete(folder)[0] or "") or True
        if isinstance(resume_from_checkpoint, str | Path):
            refuse_another_run(self.identity, Path(resume_from_checkpoint))
            refuse_other_names(self.model, Path(resume_from_checkpoint))
        lock = locked(folder) if self.args.should_save else contextlib.nullcontext()
        with lock, self.stop.listening():
            output = super().train(resume_from_checkpoint, *args, **kwargs)
            fewest = self.args.max_skipped_steps
            if self.accelerator.scaler is None:  # which in a few steps may still be on its way down
                fewest = min(fewest, max(self.state.global_step, 1))
            self._stop_if_not_finite(fewest)
        if self.stop.signal:
            raise SystemExit(128 + self.stop.signal)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self.run_state.load_teacher(Path(self.state.best_model_checkpoint))
        return output

    def _stop_if_not_finite(self, fewest: int) -> None:
        models = {"student": self.model} | ({"teacher": self.teacher.model} if self.teacher else {})
        self.skips.stop_if_not_finite(models, self.state.global_step, fewest)

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's, with workers that a scheduler's signal does not end before the run does."""
        loader: Any = super().get_train_dataloader()
        # in place of a seed for the workers' random numbers: every view is a function of its key
        loader.base_dataloader.worker_init_fn = outlive_sigterm
        return loader

    def create_optimizer(self, model: PreTrainedModel | StudentPair | None = None) -> torch.optim.Optimizer:
        """Two parameter groups: the backbone at `learning_rate`, everything else at a multiple of it."""
        if self.optimizer is None:
            made = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args)
            backbone = find_backbone(self.deployed["student"])
            engine = self.args, self.is_fsdp_enabled
            self.optimizer = make_optimizer(model or self.model, backbone, made, *engine)
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: the Trainer's estimate counts text tokens and walks every parameter at every micro-batch."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the window's statistics to the Trainer's own, and stop a run whose steps are all skipped.

        Raises:
            TrainingStopped: `max_skipped_steps` steps in a row had a gradient that is not finite.
        """
        if "loss" in logs:
            logs |= self.diagnostics.read(self.accelerator)
            self.skips.stop_if_too_many()
            if self.args.should_log:
                warn_of_spike(self.state.log_history, logs["loss"], self.state.global_step)
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As of `TeacherStudentTrainer`; in training, weights that are not finite are not scored.

        Raises:
            TrainingStopped: they are not.
        """
        if self.is_in_train:
            self._stop_if_not_finite(self.args.max_skipped_steps)
        return super().evaluate(*args, **kwargs)
