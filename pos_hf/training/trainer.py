"""`POSTrainer`: a Trainer whose step integrates two gradients. Losses and strategies live in their rooms."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.balancing import Fixed, GradientPair, Gramian, Strategy, average_over_ranks, uniform
from pos_hf.data import PairedDataset, collate
from pos_hf.data.device_views import add_strong_views
from pos_hf.errors import InputError, TrainingStopped
from pos_hf.files import write_manifest, written_aside
from pos_hf.methods import LossTerm, Method, StudentPair
from pos_hf.models.processors import statistics
from pos_hf.run_folder import STUDENT_FOLDER

from .arguments import POSConfig
from .callbacks import StepHooks
from .checkpoints import CheckpointedTrainer
from .diagnostics import Diagnostics
from .engines import DATA_PARALLEL, refuse_inexact_engine, synchronise_batch_norm
from .evaluating import EvaluatingTrainer, run_in_mixed_precision
from .guards import FailureRecord, count_bad_samples, is_finite, warn_of_spike
from .identity import identity_of
from .pushing import PushesToHub
from .refusals import refuse_what_has_no_meaning
from .teacher import EMATeacher
from .tracking import TrackerPictures


class POSTrainer(CheckpointedTrainer, EvaluatingTrainer, PushesToHub):
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

    args: POSConfig
    model: PreTrainedModel | StudentPair
    train_dataset: PairedDataset
    processing_class: BaseImageProcessor
    optimizer: Any
    # Our losses are means over a micro-batch; training_step divides them itself.
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
        processing_class = refuse_what_has_no_meaning(model, args, eval_dataset, processing_class, kwargs)
        self.method = method or args.get_method()
        train_dataset = train_dataset.for_method(self.method.num_strong_views, self.method.second_draw)
        super().__init__(
            model=synchronise_batch_norm(model, args),
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        refuse_inexact_engine(self.accelerator, args)
        self.sampler = train_dataset.sampler(args.seed if args.data_seed is None else args.data_seed)
        self.method.to(args.device)
        self.strategy = strategy or args.get_strategy()
        named = getattr(strategy, "__name__", type(strategy).__name__)
        self.strategy_name = args.strategy if strategy is None else named
        if len(self.method.objectives) == 1:
            self.strategy = Fixed(1.0, 1.0)
        self.holds_pair = len(self.method.objectives) == 2 and (
            args.measure_gradients or not isinstance(self.strategy, Fixed)
        )
        self.teacher = EMATeacher(self.model, args.teacher_decay) if self.method.uses_teacher else None
        self.diagnostics = Diagnostics()
        self.failures = FailureRecord(self.method.objectives)
        self.gradients = GradientPair([])
        self._metric: list[float] | None = None
        self._combined_norm: Tensor | None = None
        self._skipped_in_a_row = torch.zeros((), device=args.device)
        self._longest_skip = torch.zeros((), device=args.device)
        # one statistic a channel, broadcast over [..., 3, H, W]
        mean, std = statistics(processing_class)
        self._pixel_mean = torch.tensor(mean, device=args.device)[:, None, None]
        self._pixel_std = torch.tensor(std, device=args.device)[:, None, None]
        self.add_callback(StepHooks(self))
        self.add_callback(TrackerPictures(self))
        self.identity = identity_of(self)

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
        model.train()
        self.method.progress = self.state.global_step / self.state.max_steps
        batch = self._prepare_inputs(inputs)
        losses = {objective: torch.zeros((), device=self.args.device) for objective in self.method.objectives}
        statistics: dict[str, Tensor] = {}
        waiting: list[Tensor] = []
        with self._reduction_context(model):
            for term in self._loss_terms(model, batch):
                self._backward(term, waiting)
                losses[term.objective] += term.loss.detach()
                statistics |= term.statistics
        statistics |= count_bad_samples(batch, self.args.world_size)
        self.diagnostics.add(statistics | {f"{name}_loss": loss for name, loss in losses.items()})
        self.failures.add(list(losses.values()), batch["unlabeled"]["key"])
        if self.accelerator.sync_gradients:
            self._integrate()
        return torch.stack(list(losses.values())).mean() / self.current_gradient_accumulation_steps

    def capture_gradients(self, inputs: dict[str, Any]) -> GradientPair:
        """Both gradients of one batch at the weights and state that the trainer holds, without a step.

        Args:
            inputs: a collated batch, uint8.

        Returns:
            The pair, captured in one process and without a loss scaler.
        """
        self.model.train()
        self.method.progress = self.state.global_step / self.state.max_steps
        pair = GradientPair([p for p in self.model.parameters() if p.requires_grad])
        for term in self._loss_terms(self.model, self._prepare_inputs(inputs)):
            pair.restore(term.objective)
            term.loss.backward(retain_graph=term.retain_graph)
            pair.capture(term.objective)
        return pair

    def _loss_terms(self, model: nn.Module, batch: dict[str, Any]) -> Iterator[LossTerm]:
        return self.method.losses(model, self.teacher.model if self.teacher else None, batch)

    def _backward(self, term: LossTerm, waiting: list[Tensor]) -> None:
        loss = term.loss / self.current_gradient_accumulation_steps
        if not self.holds_pair:
            # with weights known in advance one backward serves all losses of a graph
            waiting.append(getattr(self.strategy, term.objective) * loss)
            if not term.retain_graph:
                self.accelerator.backward(torch.stack(waiting).sum())
                waiting.clear()
            return
        self.gradients.restore(term.objective)
        self.accelerator.backward(loss, retain_graph=term.retain_graph)
        self.gradients.capture(term.objective)

    def _integrate(self) -> None:
        if not self.holds_pair:
            return
        if self._reduces_itself:
            average_over_ranks(self.gradients.all_gradients())
        gramian = self.gradients.gramian(self._metric)
        strategy = uniform if self._burns_in else self.strategy
        weights = strategy(gramian)
        self.gradients.combine(weights)
        scale = 1.0 if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()
        gramian = Gramian(*(number / scale**2 for number in gramian))
        self.failures.add(gramian[:2])
        self.diagnostics.add_step(gramian, weights, strategy)
        if self._metric is None:
            self._combined_norm = gramian.norm(*weights)

    @property
    def _burns_in(self) -> bool:
        steps = self.args.strategy_burn_in_steps
        return self.state.global_step < (steps * self.state.max_steps if steps < 1 else steps)

    @property
    def _reduces_itself(self) -> bool:
        # DDP reduces one backward a forward: with two it silently leaves the second gradient local
        two_backwards = self.holds_pair and self.method.shared_forward
        return two_backwards and self.accelerator.distributed_type in DATA_PARALLEL

    def _reduction_context(self, model: nn.Module) -> contextlib.AbstractContextManager:
        return self.accelerator.no_sync(model) if self._reduces_itself else contextlib.nullcontext()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | None = None) -> Tensor:
        norm = self._combined_norm if grad_norm is None else grad_norm
        self._combined_norm = None
        if norm is None:
            norm = super()._get_grad_norm(model)
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        skipped = (~norm.isfinite()).float()
        self._skipped_in_a_row = (self._skipped_in_a_row + 1) * skipped
        self._longest_skip = torch.maximum(self._longest_skip, self._skipped_in_a_row)
        self.failures.close_step(skipped, self.state.global_step + 1)
        if self.accelerator.scaler is None:
            self._skip(skipped)
        return norm

    def _skip(self, skipped: Tensor) -> None:
        self.diagnostics.add({"skipped_steps": skipped})
        optimizer = self.optimizer.optimizer
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # fused kernels leave parameters and state alone where found_inf is 1, without a host sync
            optimizer.grad_scale, optimizer.found_inf = None, skipped
        elif skipped:
            self.model.zero_grad()

    # ---- Around the step ----

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move a batch to the device and turn its uint8 images into normalised float32."""
        batch: dict[str, Any] = super()._prepare_inputs(inputs)
        return {group: self._normalise(add_strong_views(views)) for group, views in batch.items()}

    def _normalise(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: (value / 255 - self._pixel_mean) / self._pixel_std if value.dtype == torch.uint8 else value
            for name, value in views.items()
        }

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return self.sampler

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.is_fsdp_enabled and self.teacher is not None:
            self.teacher.model = fsdp2_prepare_model(self.accelerator, self.teacher.model)
            # without a backward its root would stay whole, which the update cannot blend with shards
            self.teacher.model.set_reshard_after_forward(True)
        if self.teacher:
            run_in_mixed_precision(self.teacher.model, self.accelerator)
        names, parameters = zip(
            *((name, p) for name, p in self.model.named_parameters() if p.requires_grad), strict=True
        )
        self.gradients = GradientPair(parameters)
        self._metric = self._gradient_metric(names, parameters)
        return prepared

    def _gradient_metric(
        self, names: Sequence[str], parameters: Sequence[nn.Parameter]
    ) -> list[float] | None:
        scope, by_rate = self.args.gradient_scope, self.args.gradient_metric == "learning_rate"
        if scope is None and not by_rate:
            return None
        rates = {id(p): group["initial_lr"] for group in self.optimizer.param_groups for p in group["params"]}
        metric = [
            (rates[id(parameter)] if by_rate else 1.0) * name.startswith(scope or "")
            for name, parameter in zip(names, parameters, strict=True)
        ]
        if not any(metric):
            raise InputError(f"gradient_scope {scope!r} names no trainable parameter, such as {names[0]!r}")
        return metric

    def create_optimizer(self, model: PreTrainedModel | StudentPair | None = None) -> torch.optim.Optimizer:
        """Two parameter groups: the backbone at `learning_rate`, everything else at a multiple of it.

        Args:
            model: the model to optimize; None takes the student.

        Returns:
            The optimizer. Weight decay applies to every parameter, as in the published code.
        """
        if self.optimizer is not None:
            return self.optimizer
        model = model or self.model
        backbone = self._deployed(model).base_model_prefix
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups[backbone in name.split(".")].append(parameter)
        made = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args)
        optimizer_class, options = made[0], {"weight_decay": self.args.weight_decay, **made[1]}
        if optimizer_class is torch.optim.SGD:
            options.setdefault("fused", not self.is_fsdp_enabled)  # DTensor has no fused SGD
        rate = options.pop("lr", self.args.learning_rate)
        head_rate = rate * self.args.head_learning_rate_multiplier
        self.optimizer = optimizer_class(
            [{"params": groups[True], "lr": rate}, {"params": groups[False], "lr": head_rate}],
            **options,
        )
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: the Trainer's estimate counts text tokens and walks every parameter at every micro-batch."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the window's statistics to the Trainer's own, and stop a run whose steps are all skipped.

        Args:
            logs: what the Trainer logs; changed in place.
            start_time: start of training, seconds.

        Raises:
            TrainingStopped: `max_skipped_steps` steps in a row had a gradient that is not finite.
        """
        if "loss" in logs:
            logs |= self.diagnostics.read(self.accelerator)
            if self._longest_skip.item() >= self.args.max_skipped_steps:
                raise self._failure(int(self._longest_skip))
            if self.args.should_log:
                warn_of_spike(self.state.log_history, logs["loss"], self.state.global_step)
        super().log(logs, start_time)

    def _failure(self, num_steps: int) -> TrainingStopped:
        return self.failures.stop(num_steps, self.args, self.accelerator, self.train_dataset)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_evaluate or self.control.should_save:
            self._stop_if_not_finite(self.args.max_skipped_steps)
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _finalize_training(self, *args: Any) -> Any:
        fewest = self.args.max_skipped_steps
        if self.accelerator.scaler is None:  # which in a few steps may still be on its way down
            fewest = min(fewest, max(self.state.global_step, 1))
        self._stop_if_not_finite(fewest)
        return super()._finalize_training(*args)

    def _stop_if_not_finite(self, fewest: int) -> None:
        """Stop before what is not finite is scored or kept; in one transfer, apart from the training step."""
        models = {"student": self.model} | ({"teacher": self.teacher.model} if self.teacher else {})
        broken = torch.stack([~is_finite(model) for model in models.values()]).double()
        longest, in_a_row = (number.double()[None] for number in (self._longest_skip, self._skipped_in_a_row))
        numbers = self.accelerator.reduce(torch.cat([broken, longest, in_a_row]), "mean").tolist()
        if numbers[-2] >= self.args.max_skipped_steps or numbers[-1] >= fewest:
            raise self._failure(int(max(numbers[-2:])))
        for name, share in zip(models, numbers, strict=False):
            if share:
                raise TrainingStopped(
                    f"the weights of the {name} are not finite after step {self.state.global_step}: lower "
                    "learning_rate or add warmup_steps; what was saved before is as it was"
                )

    # ---- Saving and loading ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Export the trained model: the teacher where there is one, with the student in `student/` beside it.

        Inside a checkpoint (`_internal_call`) the root stays the student, which the Trainer resumes from.

        Args:
            output_dir: folder of the export; None takes `args.output_dir`.
        """
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self.args.output_dir)
        # the process that writes has the folder aside for itself; the others take part in gathering weights
        with written_aside(folder) if self.args.should_save else contextlib.nullcontext(folder) as aside:
            self._export(self.exported_model, aside)
            if self.teacher:
                self._export(self._deployed(self.model), aside / STUDENT_FOLDER)
            if self.args.should_save:
                write_manifest(aside)

    def _export(self, model: PreTrainedModel, folder: Path) -> None:
        state_dict = self.accelerator.get_state_dict(model)
        if self.args.should_save:
            model.save_pretrained(folder, state_dict=state_dict)
            self.processing_class.save_pretrained(folder)
