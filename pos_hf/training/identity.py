"""What makes a run this run: recorded in its checkpoints, compared before one of them is gone on from."""

import json
from pathlib import Path
from typing import Any

from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.data import PairedDataset
from pos_hf.errors import InputError
from pos_hf.evaluation import label_names
from pos_hf.methods import METHODS, Method
from pos_hf.methods.confidence import Percentile
from pos_hf.methods.mean_teacher import MeanTeacher
from pos_hf.run_folder import IDENTITY_FILE

from .arguments import POSConfig

INHERITED = (
    "learning_rate",
    "warmup_steps",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "seed",
    "data_seed",
)
"""What changes the mathematics among the arguments that POSConfig does not declare itself."""
FREE = (
    "output_dir",
    "overwrite",
    "logging_steps",
    "logging_nan_inf_filter",
    "remove_unused_columns",
    "bf16",
    "measure_gradients",
    "inference_options",
    "max_skipped_steps",
)
"""What changes none among those that it does."""
OF_TWO_GRADIENTS = (
    "strategy",
    "strategy_options",
    "strategy_burn_in_steps",
    "gradient_scope",
    "gradient_metric",
)
FREE_OF_LENGTH = ("constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "greedy")
"""Schedules of the learning rate that are the same however many steps follow."""
FOLLOW_PROGRESS = (MeanTeacher, Percentile)
"""What reads the share of the steps that are done."""
BATCH = "per_device_train_batch_size x gradient_accumulation_steps x processes"
MOST_NAMED = 4


def facts_of(method: Method, strategy: str, dataset: PairedDataset, seed: int) -> dict[str, Any]:
    """What a trainer itself knows of `pos_hf.hub.model_card.FACTS`.

    Args:
        method: of the run.
        strategy: its name.
        dataset: the pairs.
        seed: of the run.
    """
    names = {kind: name for name, kind in METHODS.items()}
    num_unlabeled = len(dataset.unlabeled) if "unsupervised" in method.objectives else 0
    return {
        "num_labeled": len(dataset.labeled),
        "num_unlabeled": num_unlabeled,
        "method": names.get(type(method), type(method).__name__),
        "strategy": strategy if num_unlabeled else "supervised",
        "seed": seed,
    }


def identity_of(
    args: POSConfig,
    method: Method,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Everything that a trainer knows of and that changes the mathematics of the run.

    Args:
        args: of the run.
        method: of the run.
        model: that it is for.
        processor: normalises the images.
        facts: of `facts_of`.

    Returns:
        Values of JSON by the key that a user would change, without any path.
    """
    settings = args.to_dict()
    names = [*(name for name in POSConfig.__annotations__ if name not in FREE), *INHERITED]
    identity = {name: settings[name] for name in names}
    if not _is_free_of_length(args, method):
        counts_steps = args.max_steps > 0
        identity["max_steps"] = args.max_steps if counts_steps else None
        identity["num_train_epochs"] = None if counts_steps else args.num_train_epochs
    if len(method.objectives) == 1:
        identity = {name: value for name, value in identity.items() if name not in OF_TWO_GRADIENTS}
    identity |= {
        **{name: facts[name] for name in ("method", "strategy", "num_labeled", "num_unlabeled")},
        BATCH: args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "architecture": f"{type(model).__name__} of {model.num_parameters()} parameters",
        "classes": list(label_names(model).values()),
        "image_mean": processor.to_dict()["image_mean"],
        "image_std": processor.to_dict()["image_std"],
    }
    return identity


def _is_free_of_length(args: POSConfig, method: Method) -> bool:
    return (
        args.lr_scheduler_type in FREE_OF_LENGTH
        # below 1 they are a share of all steps
        and not 0 < args.warmup_steps < 1
        and not 0 < args.strategy_burn_in_steps < 1
        and not any(isinstance(part, FOLLOW_PROGRESS) for part in method.modules())
    )


def write_identity(identity: dict[str, Any], checkpoint: Path) -> None:
    """Record what the run is beside what it has reached."""
    (checkpoint / IDENTITY_FILE).write_text(json.dumps(identity, indent=1) + "\n")


def refuse_another_run(identity: dict[str, Any], checkpoint: Path) -> None:
    """Compare a run with the one that wrote a checkpoint.

    Args:
        identity: of the run that would go on.
        checkpoint: a complete one; what it recorded and this run does not know of is passed over.

    Raises:
        InputError: names the keys that differ, with the old and the new value.
    """
    try:
        recorded = json.loads((checkpoint / IDENTITY_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{checkpoint} holds no {IDENTITY_FILE} that can be read: resume from a checkpoint of POSTrainer"
        ) from error
    current = json.loads(json.dumps(identity))
    changed = [
        f"{name} {json.dumps(recorded[name])} (now {json.dumps(value)})"
        for name, value in current.items()
        if name in recorded and recorded[name] != value
    ]
    if changed:
        named = ", ".join(changed[:MOST_NAMED]) + (", ..." if len(changed) > MOST_NAMED else "")
        raise InputError(
            f"{checkpoint} was written by a run with {named}: go on as it was begun, or start another run "
            "without resume_from_checkpoint, from its weights with `model` if you like"
        )
