"""`POSConfig`: transformers' TrainingArguments and what balancing two objectives adds to them."""

import logging
import os
import resource
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from accelerate.utils import DynamoBackend
from transformers import IntervalStrategy, SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import HubStrategy
from transformers.training_args import OptimizerNames

from pos_hf.balancing import Gramian, Strategy, get_strategy
from pos_hf.errors import InputError, first_sentence
from pos_hf.evaluation.inference import Inference, read_inference
from pos_hf.methods import Method, get_method
from pos_hf.values import check_group, check_type, json_options

logger = logging.getLogger(__name__)

FILES, FILES_A_WORKER = 48, 8  # open at a time
INTERVALS = {
    "per_device_train_batch_size": "[1, 65536]",
    "per_device_eval_batch_size": "[1, 65536]",
    "gradient_accumulation_steps": "[1, 65536]",
    "num_train_epochs": "[0, 1e9]",
    "max_steps": "[-1, 1e12]",
    "learning_rate": "(0, 1e6]",
    "head_learning_rate_multiplier": "[0, 1e6]",
    "warmup_steps": "[0, 1e12]",
    "weight_decay": "[0, 1e6]",
    "adam_beta1": "[0, 1)",
    "adam_beta2": "[0, 1)",
    "adam_epsilon": "(0, 1]",
    "max_grad_norm": "[0, inf)",
    "teacher_decay": "[0, 1]",
    "max_skipped_steps": "[1, 1e12]",
    "early_stopping_patience": "[1, 1e12]",
    "strategy_burn_in_steps": "[0, 1e12]",
    "logging_steps": "(0, 1e12]",
    "eval_steps": "(0, 1e12]",
    "save_steps": "(0, 1e12]",
    "eval_delay": "[0, 1e12]",
    "save_total_limit": "[1, 1e12]",
    "seed": "[0, 4294967295]",
    "data_seed": "[0, 4294967295]",
    "dataloader_num_workers": "[0, 1024]",
    "dataloader_prefetch_factor": "[1, 1024]",
    "torch_empty_cache_steps": "[1, 1e12]",
    "ddp_timeout": "[1, 1e9]",
    "ddp_bucket_cap_mb": "[1, 1e6]",
}
CHOICES = {
    "log_level": ("passive", "detail", "debug", "info", "warning", "error", "critical"),
    "log_level_replica": ("passive", "detail", "debug", "info", "warning", "error", "critical"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "train_sampling_strategy": ("random",),
}
SCORED_OTHERWISE = ("bf16_full_eval", "fp16_full_eval", "batch_eval_metrics", "prediction_loss_only")
MADE_FOR_TEXT = ("label_smoothing_factor", "neftune_noise_alpha", "use_liger_kernel")
POLYNOMIAL = {"power": 0.9, "lr_end": 0.0}
STEERED_BY_SCORES = ("reduce_lr_on_plateau", "greedy")
SCORES = ("mean_iou", "mean_iou_absent_zero", "overall_accuracy", "student_mean_iou")
CLASS_SCORE = "iou_"

STEPS_IN_BACKWARD = ("lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise")


@dataclass
class POSConfig(TrainingArguments):
    """Arguments of `POSTrainer`.

    Defaults that differ from TrainingArguments, all to agree with the published training code: no gradient
    clipping (it would undo MEO), weight decay 0.01 on every parameter, polynomial decay to zero with power
    0.9, incomplete batches dropped. Two more keep the training step free of host syncs and the batch whole:
    `logging_nan_inf_filter=False`, `remove_unused_columns=False`. One is for speed: `bf16` is on with a GPU
    that multiplies bfloat16 (published: fp32, `bf16=False`).

    > What is trained

    Args:
        method: how the two losses are made, a name in `pos_hf.methods.METHODS`.
        method_options: arguments of the method, for example `{"threshold": 0.95}`.
        strategy: how the two gradients are integrated, a name in `pos_hf.balancing`.
        strategy_options: arguments of the strategy, for example `{"min_weight": 0}`.
        strategy_burn_in_steps: optimizer steps of the uniform average before the strategy; below 1 a share of
            the run.

    > Which inner product the strategy sees

    Args:
        gradient_scope: only parameters whose name starts with this count in the Gramian (all of them are
            updated); None counts every trainable one.
        gradient_metric: "euclidean", or "learning_rate" to weight each parameter group by its learning rate,
            for which the common-descent guarantee holds exactly.
        measure_gradients: log cosine and norms also under a fixed strategy (costs one more gradient copy).

    > Optimization

    Args:
        head_learning_rate_multiplier: learning rate of everything outside the backbone, relative to
            `learning_rate`, which is the backbone's.
        teacher_decay: plateau of the EMA teacher's decay.
        inference_options: how evaluation predicts an image, arguments of `pos_hf.evaluation.Inference`, for
            example `{"window": 798}`; None predicts each whole.
        sync_batch_norm: BatchNorm sees the images of all processes (GPUs), as the published ResNet runs do.
        overwrite: replace the run that `output_dir` already holds.
        early_stopping_patience: stop after this many evaluations in a row without a better score, and export
            the best; it saves where it evaluates.
        console: "auto" shows rows and a bar on a terminal and plain rows elsewhere, "plain" always the
            latter, "json" one JSON object a line with every number of the log.
        max_skipped_steps: stop with an error after this many steps in a row whose gradient is not finite.
    """

    output_dir: str = field(default="runs/default", metadata={"help": "Folder of the run."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "0 does not clip; clipping would undo MEO."})
    weight_decay: float = field(default=0.01, metadata={"help": "Decay of every parameter."})
    lr_scheduler_type: SchedulerType | str = field(
        default="polynomial", metadata={"help": "The learning rate's schedule."}
    )
    lr_scheduler_kwargs: dict[str, Any] | str | None = field(
        default_factory=lambda: dict(POLYNOMIAL),
        metadata={"help": "Arguments of the schedule, as JSON."},
    )
    logging_steps: float = field(default=10, metadata={"help": "Log every so many optimizer steps."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "True costs a host sync in every step."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: a batch is made of two groups of tensors."}
    )
    bf16: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Mixed precision in bfloat16; left out, on with a GPU that multiplies bfloat16."},
    )
    hub_strategy: HubStrategy | str = field(
        default="end", metadata={"help": "Pushed is the finished run, at the end alone."}
    )
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop an incomplete last batch."})

    overwrite: bool = field(
        default=False, metadata={"help": "Replace the run that output_dir already holds."}
    )

    method: str = field(default="unimatch_v2", metadata={"help": "How the two losses are made."})
    method_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Arguments of the method, as JSON."}
    )
    strategy: str = field(default="pos", metadata={"help": "How the two gradients are integrated."})
    strategy_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Arguments of the strategy, as JSON: {"min_weight": 0}.'}
    )
    strategy_burn_in_steps: float = field(
        default=0,
        metadata={"help": "Steps of the uniform average before the strategy; below 1 a share of the run."},
    )
    gradient_scope: str | None = field(
        default=None, metadata={"help": "Prefix of the parameters that count in the Gramian."}
    )
    gradient_metric: Literal["euclidean", "learning_rate"] = field(
        default="euclidean", metadata={"help": "Inner product of the Gramian."}
    )
    measure_gradients: bool = field(
        default=False, metadata={"help": "Log cosine and norms also under a fixed strategy."}
    )
    head_learning_rate_multiplier: float = field(
        default=1.0, metadata={"help": "Learning rate outside the backbone over the backbone's."}
    )
    teacher_decay: float = field(default=0.996, metadata={"help": "Plateau of the EMA teacher's decay."})
    inference_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'How evaluation predicts an image, as JSON: {"window": 798}. Default: whole.'},
    )
    sync_batch_norm: bool = field(
        default=False, metadata={"help": "BatchNorm over the images of all processes; one has no use for it."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better score, and export the best."},
    )
    console: Literal["auto", "plain", "json"] = field(
        default="auto", metadata={"help": "What a run prints: auto, plain rows, or json, an object a line."}
    )
    max_skipped_steps: int = field(
        default=10, metadata={"help": "Stop after this many non-finite steps in a row."}
    )

    def __post_init__(self) -> None:
        if self.deepspeed is not None:
            raise InputError(
                "DeepSpeed steps inside the backward, before the two gradients can be integrated; use FSDP2 "
                "(fsdp with fsdp_version: 2) instead"
            )
        if self.bf16 is None:
            launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            self.bf16 = launched_with == "no" and not self.fp16 and not self.use_cpu and gpu_multiplies_bf16()
        self.debug = self.debug or ""  # the command line's parser gives None for it
        check_group(self, INTERVALS)
        for name, choices in CHOICES.items():
            if getattr(self, name) is not None:
                check_type(name, getattr(self, name), Literal[choices])
        if self.torch_compile_backend is not None:
            known = set(torch.compiler.list_backends(exclude_tags=()))
            backends = tuple(name for backend in DynamoBackend if (name := backend.value.lower()) in known)
            check_type("torch_compile_backend", self.torch_compile_backend, Literal[backends])
        if self.max_steps == 0 or (self.max_steps < 0 and self.num_train_epochs == 0):
            raise InputError("max_steps and num_train_epochs ask for no step: set one of them above 0")
        if self.lr_scheduler_type != "polynomial" and self.lr_scheduler_kwargs == POLYNOMIAL:
            self.lr_scheduler_kwargs = None  # the default's, which no other schedule takes
        is_steered = self.lr_scheduler_type in STEERED_BY_SCORES
        if is_steered:  # by a loss, which is to fall, if nothing else is said
            options = json_options("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
            self.lr_scheduler_kwargs = {"mode": "max", **options}
        check_open_files(self.dataloader_num_workers)
        if self.early_stopping_patience is not None:
            if self.eval_strategy == "no":
                raise InputError("early_stopping_patience needs scores: set eval_strategy to steps or epoch")
            self.load_best_model_at_end = True
            self.save_strategy, self.save_steps = self.eval_strategy, self.eval_steps or self.logging_steps
        if self.load_best_model_at_end or self.save_strategy == "best" or is_steered:
            self.metric_for_best_model = self.metric_for_best_model or SCORES[0]
        try:
            super().__post_init__()
        except Exception as error:  # whatever transformers and accelerate raise for one of a hundred values
            raise InputError(f"the training arguments do not go together: {first_sentence(error)}") from error
        self.method_options = json_options("method_options", self.method_options)
        self.strategy_options = json_options("strategy_options", self.strategy_options)
        self.inference_options = json_options("inference_options", self.inference_options)
        # there is nothing to pin for without an accelerator, and torch warns about it
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
        self._refuse_what_has_no_meaning()
        self._check_scores()
        self._try_out()

    def _refuse_what_has_no_meaning(self) -> None:
        """Refuse what is made for other tasks, and what would break a step or a checkpoint."""
        if self.remove_unused_columns:
            raise InputError("remove_unused_columns would drop half of every batch: leave it False")
        for name in MADE_FOR_TEXT:
            if getattr(self, name):
                raise InputError(f"{name} is made for text: leave it out")
        for name in SCORED_OTHERWISE:
            if getattr(self, name):
                raise InputError(
                    f"{name} has no meaning where whole images are scored in the weights' precision: leave "
                    "it out"
                )
        if self.dataloader_persistent_workers and self.dataloader_num_workers == 0:
            raise InputError("dataloader_persistent_workers needs dataloader_num_workers above 0")
        if self.auto_find_batch_size:
            raise InputError(
                "auto_find_batch_size would restart training under a half-filled gradient pair; "
                "set per_device_train_batch_size, and gradient_accumulation_steps for larger batches"
            )
        if self.optim in STEPS_IN_BACKWARD:
            raise InputError(
                f"optim {OptimizerNames(self.optim).value!r} steps inside the backward, before the two "
                "gradients can be integrated; use adamw_torch_fused or sgd"
            )
        if self.ddp_static_graph and self.gradient_accumulation_steps > 1:
            raise InputError(
                "ddp_static_graph cannot be combined with gradient accumulation (PyTorch asserts); "
                "set one of them off"
            )
        if self.push_to_hub and self.hub_strategy != HubStrategy.END:
            raise InputError(
                f"hub_strategy is {HubStrategy(self.hub_strategy).value!r}, but a run is pushed once, when "
                "it is finished and scored: leave it out, or push a folder with pos-hf push at any time"
            )
        if self.save_only_model:
            raise InputError("save_only_model would leave the teacher out of the checkpoints: leave it False")

    def _check_scores(self) -> None:
        """Check what says when to evaluate, and by which score to choose."""
        score = (self.metric_for_best_model or SCORES[0]).removeprefix("eval_")
        if score not in SCORES and not score.startswith(CLASS_SCORE):
            raise InputError(
                f"metric_for_best_model is {self.metric_for_best_model!r}, but the scores are "
                f"{', '.join(SCORES)} and {CLASS_SCORE}<class>"
            )
        if self.save_strategy == "best" and self.eval_strategy == "no":
            raise InputError("save_strategy 'best' needs scores: set eval_strategy to steps or epoch")
        if self.eval_steps is not None and self.eval_strategy != "steps":
            logger.warning(
                "eval_steps is not used, because eval_strategy is %r: set it to steps",
                IntervalStrategy(self.eval_strategy).value,
            )

    def _try_out(self) -> None:
        """Make what is made from names and options once, at the size of one number."""
        self.get_method()
        self.get_inference()
        weights = self.get_strategy()(Gramian(*torch.tensor([1.0, 1.0, -0.5])))
        if not all(weight.isfinite() for weight in weights):
            raise InputError(f"strategy_options {self.strategy_options} give no finite weights: correct them")
        try:
            optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(self)
            optimizer = optimizer_class([torch.nn.Parameter(torch.zeros(1))], **options)
        except Exception as error:  # each optimizer's own, and those of the library it comes from
            raise InputError(
                f"optim {OptimizerNames(self.optim).value!r} cannot be used with optim_args "
                f"{self.optim_args!r}: {first_sentence(error)}"
            ) from error
        try:
            options = {"num_training_steps": 10, "scheduler_specific_kwargs": self.lr_scheduler_kwargs}
            get_scheduler(self.lr_scheduler_type, optimizer, num_warmup_steps=1, **options)
        except Exception as error:  # likewise
            raise InputError(
                f"lr_scheduler_type {SchedulerType(self.lr_scheduler_type).value!r} cannot be used with "
                f"lr_scheduler_kwargs {self.lr_scheduler_kwargs}: {first_sentence(error)}"
            ) from error
        if self.report_to:
            missing = set(self.report_to) - set(get_available_reporting_integrations())
            if missing:
                raise InputError(
                    f"report_to names {', '.join(sorted(missing))}, which is unknown or not installed"
                )

    def get_strategy(self) -> Strategy:
        """The strategy that `strategy` and `strategy_options` name.

        Raises:
            InputError: the name or an option is unknown.
        """
        return get_strategy(self.strategy, **cast(dict[str, Any], self.strategy_options))

    def get_method(self) -> Method:
        """The method that `method` and `method_options` name.

        Raises:
            InputError: the name or an option is unknown.
        """
        return get_method(self.method, **cast(dict[str, Any], self.method_options))

    def get_inference(self) -> Inference:
        """How evaluation predicts an image: what `inference_options` say.

        Raises:
            InputError: an option is unknown or does not fit.
        """
        return read_inference(self.inference_options)


def check_open_files(num_workers: int) -> None:
    """Refuse a limit of open files under which workers hang or die without a word.

    Args:
        num_workers: processes that load data.

    Raises:
        InputError: the process may not open enough files.
    """
    needed = FILES + FILES_A_WORKER * num_workers
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < needed:
        fewer = ", or lower dataloader_num_workers" if num_workers else ""
        raise InputError(
            f"only {limit} files may be open at a time, and dataloader_num_workers {num_workers} needs about "
            f"{needed}: raise the limit (ulimit -n 4096){fewer}"
        )


def gpu_multiplies_bf16() -> bool:
    """Whether there is a GPU with bfloat16 units; older ones emulate it, slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
