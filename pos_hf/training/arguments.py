"""`POSConfig`: transformers' TrainingArguments and what balancing two objectives adds to them."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from pos_hf.balancing import Strategy, get_strategy
from pos_hf.errors import InputError
from pos_hf.methods import Method, get_method

STEPS_IN_BACKWARD = ("lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise")


@dataclass
class POSConfig(TrainingArguments):
    """Arguments of `POSTrainer`.

    Defaults that differ from TrainingArguments, all to agree with the published training code: no gradient
    clipping (it would undo MEO), weight decay 0.01 on every parameter, polynomial decay to zero with power
    0.9, incomplete batches dropped. Two more keep the training step free of host syncs and the batch whole:
    `logging_nan_inf_filter=False`, `remove_unused_columns=False`.

    > What is trained

    Args:
        method: how the two losses are made, a name in `pos_hf.methods.METHODS`.
        method_options: arguments of the method, for example `{"threshold": 0.95}`.
        strategy: how the two gradients are integrated, a name in `pos_hf.balancing`.
        strategy_options: arguments of the strategy, for example `{"preset": "paper"}`.

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
        overwrite: replace the run that `output_dir` already holds.
        max_skipped_steps: stop with an error after this many steps in a row whose gradient is not finite.
    """

    output_dir: str = field(default="runs/default", metadata={"help": "Folder of the run."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "0 does not clip; clipping would undo MEO."})
    weight_decay: float = field(default=0.01, metadata={"help": "Decay of every parameter."})
    lr_scheduler_type: str = field(default="polynomial", metadata={"help": "The learning rate's schedule."})
    lr_scheduler_kwargs: dict[str, Any] | str | None = field(
        default_factory=lambda: {"power": 0.9, "lr_end": 0.0},
        metadata={"help": "Arguments of the schedule, as JSON."},
    )
    logging_steps: float = field(default=10, metadata={"help": "Log every so many optimizer steps."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "True costs a host sync in every step."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: a batch is made of two groups of tensors."}
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
        default=None, metadata={"help": 'Arguments of the strategy, as JSON: {"preset": "paper"}.'}
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
    max_skipped_steps: int = field(
        default=10, metadata={"help": "Stop after this many non-finite steps in a row."}
    )

    def __post_init__(self) -> None:
        if self.deepspeed is not None:
            raise InputError(
                "DeepSpeed steps inside the backward, before the two gradients can be integrated; use FSDP2 "
                "(fsdp with fsdp_version: 2) instead"
            )
        super().__post_init__()
        self.method_options = json_options("method_options", self.method_options)
        self.strategy_options = json_options("strategy_options", self.strategy_options)
        # there is nothing to pin for without an accelerator, and torch warns about it
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
        self.get_strategy()
        if self.gradient_metric not in ("euclidean", "learning_rate"):
            raise InputError(
                f"gradient_metric is 'euclidean' or 'learning_rate', not {self.gradient_metric!r}"
            )
        if self.remove_unused_columns:
            raise InputError("remove_unused_columns would drop half of every batch: leave it False")
        if self.label_smoothing_factor:
            raise InputError(
                "label_smoothing_factor is made for text; use a method with soft targets, or leave it 0"
            )
        if self.auto_find_batch_size:
            raise InputError(
                "auto_find_batch_size would restart training under a half-filled gradient pair; "
                "set per_device_train_batch_size, and gradient_accumulation_steps for larger batches"
            )
        if self.optim in STEPS_IN_BACKWARD:
            raise InputError(
                f"optim {str(self.optim)!r} steps inside the backward, before the two gradients can be "
                "integrated; use adamw_torch_fused or sgd"
            )
        if self.ddp_static_graph and self.gradient_accumulation_steps > 1:
            raise InputError(
                "ddp_static_graph cannot be combined with gradient accumulation (PyTorch asserts); "
                "set one of them off"
            )

    def get_strategy(self) -> Strategy:
        """The strategy that `strategy` and `strategy_options` name.

        Raises:
            InputError: the name or an option is unknown.
        """
        try:
            return get_strategy(self.strategy, **json_options("strategy_options", self.strategy_options))
        except ValueError as error:
            raise InputError(str(error)) from error

    def get_method(self) -> Method:
        """The method that `method` and `method_options` name.

        Raises:
            InputError: the name or an option is unknown.
        """
        return get_method(self.method, **json_options("method_options", self.method_options))


def json_options(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:
    """Options as a config file (a mapping) or a command line (JSON) gives them.

    Args:
        name: of the key, for the message.
        value: the mapping, its JSON, or None for no options.

    Returns:
        The mapping.

    Raises:
        InputError: the value is something else.
    """
    try:
        options = json.loads(value) if isinstance(value, str) else value or {}
    except ValueError as error:
        raise InputError(f"{name} {value!r} is not valid JSON: {error}") from error
    if not isinstance(options, dict):
        raise InputError(f'{name} must be a mapping such as {{"threshold": 0.9}}, not {value!r}')
    return options
