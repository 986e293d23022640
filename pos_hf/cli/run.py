"""One training run from its arguments: data, model, trainer, finished folder. Parsing is in config.py."""

import contextlib
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.cli.config import ModelArguments
from pos_hf.cli.preflight import (
    OUTPUTS,
    check_before_loading,
    check_crop,
    check_rows,
    check_sizes,
    settle_device_views,
)
from pos_hf.data import DataArguments, PairedDataset, SegmentationData, load_data
from pos_hf.errors import InputError
from pos_hf.evaluation import evaluate_images, labeler_of, predict_images, protocol
from pos_hf.files import RUN_FILE, written_aside
from pos_hf.hub import write_model_card
from pos_hf.locks import check_held, locked
from pos_hf.methods import Method, StudentPair
from pos_hf.models import PRESETS, build_model, default_image_processor
from pos_hf.models.presets import check_name
from pos_hf.models.processors import inherited_image_processor
from pos_hf.reporting import EXAMPLES, WORST, worst_images, write_examples, write_report
from pos_hf.reporting.pseudo_labels import PseudoLabelPictures
from pos_hf.training import POSConfig, POSTrainer
from pos_hf.training.advice import advice_on_evaluation, advice_on_failure
from pos_hf.training.arguments import json_options
from pos_hf.training.checkpoints import checkpoints, find_damage, newest_complete
from pos_hf.training.identity import refuse_another_run

NUM_EXAMPLES = 6
# what of the data changes the mathematics, beside which images there are
VIEWS = (
    "crop_size",
    "scale_range",
    "unlabeled_ratio",
    "epoch_over",
    "class_aware_sampling",
    "rare_class_retries",
    "mask_values",
    "mask_colors",
    "reduce_labels",
    "image_range",
)


def run_training(model_args: ModelArguments, data_args: DataArguments, args: POSConfig) -> Path:
    """Train, evaluate and export one model.

    Args:
        model_args: the network.
        data_args: the images.
        args: everything else.

    Returns:
        The run's folder: the exported model, its card, run.json, metrics.json, examples and report.html.

    Raises:
        InputError: something cannot be used; nothing has been trained or written.
    """
    folder = Path(args.output_dir)
    with locked(folder) if args.should_save else contextlib.nullcontext():
        _run_training(model_args, data_args, args, folder)
    return folder


def _run_training(
    model_args: ModelArguments, data_args: DataArguments, args: POSConfig, folder: Path
) -> None:
    checkpoint = find_checkpoint(folder, args)
    is_fresh = checkpoint is None or not lies_in(checkpoint, folder)
    check_before_loading(model_args, data_args, args, is_fresh)
    method = args.get_method()
    needs_unlabeled = "unsupervised" in method.objectives
    data, processor = load_images(model_args, data_args, needs_unlabeled)
    check_rows(data, data_args, args)
    settle_device_views(data_args, args.device, data.num_channels)
    trainer = make_trainer(model_args, data_args, args, data, method, processor)
    check_crop(trainer.exported_model, data_args.crop_size)
    if trainer.exported_model.device.type == args.device.type:  # else it is sharded later (FSDP)
        check_sizes(trainer.exported_model, data, data_args.crop_size, args.get_inference())
    facts = training_facts(trainer, model_args, data_args, data)
    trainer.identity |= identity_of_inputs(model_args, data_args, facts)
    if checkpoint is not None:
        refuse_another_run(trainer.identity, Path(checkpoint))
    trainer.accelerator.wait_for_everyone()  # every process has looked whether the folder holds another run
    if args.should_save:
        groups = {
            "facts": facts,
            "model": dataclasses.asdict(model_args),
            "data": dataclasses.asdict(data_args),
            "training": args.to_dict(),
        }
        with written_aside(folder) as aside:
            (aside / RUN_FILE).write_text(json.dumps(groups, indent=2, default=str) + "\n")
        if args.overwrite and is_fresh:
            # or the replaced run's would pass for this one's
            for old in [*checkpoints(folder), *(folder / name for name in OUTPUTS)]:
                shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    can_checkpoint = trainer.exported_model.supports_gradient_checkpointing
    with advice_on_failure(args, data_args.crop_size, can_checkpoint):
        trainer.train(resume_from_checkpoint=checkpoint)
    check_held(folder)
    trainer.save_model()
    trainer.save_state()
    with trainer.as_loaded(), advice_on_evaluation(args, str(folder)):
        finish_folder(trainer, data, facts)
    if args.push_to_hub:
        trainer.push_to_hub()


def find_checkpoint(folder: Path, args: POSConfig) -> str | None:
    """The checkpoint to resume from, if any; a folder that holds another run is not touched unasked.

    Args:
        folder: of the run.
        args: `resume_from_checkpoint` is a folder or "latest", which a run that was stopped before its first
            checkpoint may say too; `overwrite` allows a second run in `folder`.

    Returns:
        The checkpoint's folder, or None for a fresh run.

    Raises:
        InputError: the checkpoint is not there or damaged, or the folder holds another run.
    """
    asked = args.resume_from_checkpoint
    if asked == "latest":
        checkpoint, skipped = newest_complete(folder)
        if checkpoint is None and checkpoints(folder) and not args.overwrite:
            raise InputError(
                f"there is no checkpoint in {folder} to resume from ({'; '.join(skipped)}): start again with "
                "--overwrite"
            )
        outcome = f"resuming from {checkpoint}" if checkpoint else f"{folder} has no checkpoint yet: starting"
        if args.should_log and (skipped or checkpoint is None):
            print("; skipped ".join([outcome, *skipped]), file=sys.stderr)
        return str(checkpoint) if checkpoint else None
    if asked is not None:
        if not Path(asked).is_dir():
            raise InputError(f"there is no checkpoint {asked}")
        if damage := find_damage(Path(asked)):
            raise InputError(
                f"{asked} is not complete ({damage}): resume from `latest`, which is the newest complete one"
            )
    if (asked is None or not lies_in(asked, folder)) and (folder / RUN_FILE).exists() and not args.overwrite:
        raise InputError(
            f"{folder} holds another run: choose another output_dir, resume it with "
            "--resume_from_checkpoint latest, or replace it with --overwrite"
        )
    return asked


def lies_in(checkpoint: str, folder: Path) -> bool:
    """Whether a checkpoint is one of the run in `folder`, not of another run."""
    return Path(checkpoint).resolve().parent == folder.resolve()


def make_trainer(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: POSConfig,
    data: SegmentationData,
    method: Method,
    processor: BaseImageProcessor,
) -> POSTrainer:
    """Build the student for the data's classes and the trainer for both.

    Args:
        model_args: the network.
        data_args: the views.
        args: the trainer's own arguments.
        data: loaded and checked.
        method: how the losses are made.
        processor: normalises in training and is saved beside the model.

    Returns:
        The trainer, ready to train.
    """
    torch.manual_seed(args.seed)
    students = [build_student(model_args, data) for _ in range(method.num_students)]
    scored = data.test if data.selection is None else data.selection
    trainer = POSTrainer(
        StudentPair(*students) if len(students) == 2 else students[0],
        args,
        PairedDataset.from_arguments(data, data_args, args.seed),
        eval_dataset=scored,
        processing_class=processor,
        method=method,
    )
    if scored is not None:
        trainer.add_callback(PseudoLabelPictures(trainer, scored, data.palette))
    return trainer


def load_images(
    model_args: ModelArguments, data_args: DataArguments, needs_unlabeled: bool = True
) -> tuple[SegmentationData, BaseImageProcessor]:
    """The data, read as the start model reads images where the config does not say how.

    Args:
        model_args: the network.
        data_args: the images.
        needs_unlabeled: without unlabeled images the data is refused.

    Returns:
        The data, checked, and the processor that normalises in training and is saved beside the model.

    Raises:
        InputError: the data or the start model's processor cannot be used.
    """
    processor = read_image_processor(model_args, data_args)
    ranged = dataclasses.replace(data_args, image_range=processor.to_dict().get("image_range"))
    data = load_data(ranged, needs_unlabeled)
    set_statistics(processor, data_args, data.num_channels)
    return data, processor


def read_image_processor(model_args: ModelArguments, data_args: DataArguments) -> BaseImageProcessor:
    """The processor that a training begins with, before the images are known.

    Args:
        model_args: a preset gets the default one, a start model brings its own.
        data_args: `image_range` goes before the start model's.

    Returns:
        A processor whose `image_range`, if any, reads the images.

    Raises:
        InputError: there is no such model, or its processor cannot be used.
    """
    check_name(model_args.model)
    if model_args.model in PRESETS:
        processor: Any = default_image_processor()
    else:
        processor = inherited_image_processor(model_args.model, model_args.trust_remote_code)
    if data_args.image_range is not None:
        processor.image_range = list(data_args.image_range)
    return processor


def set_statistics(processor: BaseImageProcessor, data_args: DataArguments, num_channels: int) -> None:
    """Complete a processor with what the config and the images say.

    Where the config says nothing, a start model's statistics stay as they are, and those of images of other
    than the processor's channels become 0.5 and 0.25.

    Args:
        processor: changed in place.
        data_args: `image_mean` and `image_std`.
        num_channels: of the images.

    Raises:
        InputError: there is not one number a channel.
    """
    for name, neutral in (("image_mean", 0.5), ("image_std", 0.25)):
        own = list(getattr(processor, name))
        default = own * num_channels if len(own) == 1 else own
        if len(default) != num_channels:
            default = [neutral] * num_channels
        asked = getattr(data_args, name)
        values = default if asked is None else asked
        if len(values) != num_channels:
            raise InputError(f"{name} has {len(values)} numbers, but the images have {num_channels} channels")
        setattr(processor, name, list(values))


def build_student(model_args: ModelArguments, data: SegmentationData) -> PreTrainedModel:
    """One network for the data's classes.

    Args:
        model_args: which network and weights.
        data: its classes and palette.

    Returns:
        The model, in training mode.
    """
    return build_model(
        model_args.model,
        data.id2label,
        backbone_weights=model_args.backbone_weights,
        num_channels=data.num_channels,
        trust_remote_code=model_args.trust_remote_code,
        **{"palette": data.palette, **json_options("model_options", model_args.model_options)},
    )


def training_facts(
    trainer: POSTrainer, model_args: ModelArguments, data_args: DataArguments, data: SegmentationData
) -> dict[str, Any]:
    """What the model card and the evaluation's protocol say of the training.

    Args:
        trainer: before or after training.
        model_args: where the weights come from.
        data_args: where the images come from.
        data: its roles.

    Returns:
        `pos_hf.hub.model_card.FACTS`, without any path of this machine.
    """
    origin = model_args.backbone_weights or model_args.model
    from_hub = data_args.dataset_format == "huggingface" and not Path(data_args.dataset).is_dir()
    return {
        "dataset": data.name,
        "hub_dataset": data_args.dataset if from_hub else None,
        "base_model": None if origin in PRESETS or Path(origin).is_dir() else origin,
        "split_hash": data.split_hash(),
        **trainer.facts,
    }


def identity_of_inputs(
    model_args: ModelArguments, data_args: DataArguments, facts: dict[str, Any]
) -> dict[str, Any]:
    """What changes the mathematics of a run beside what its trainer knows of, without any path.

    Args:
        model_args: the network.
        data_args: the views.
        facts: of `training_facts`.

    Returns:
        Values by the key that a user would change.
    """
    return {
        **({"model": model_args.model} if model_args.model in PRESETS else {}),
        "model_options": model_args.model_options,
        "split_hash": facts["split_hash"],
        **{name: getattr(data_args, name) for name in VIEWS},
    }


def finish_folder(trainer: POSTrainer, data: SegmentationData, facts: dict[str, Any]) -> None:
    """Score the exported model on the test set (the selection set where there is none) and write the results.

    Args:
        trainer: after training.
        data: its roles.
        facts: of the training, for the protocol.
    """
    args, model = trainer.args, trainer.exported_model
    folder, inference = Path(args.output_dir), args.get_inference()
    role = "selection" if data.test is None else "test"
    if role not in data.masked_roles:
        if args.should_save:
            write_model_card(folder)
        return
    rows = data.masked_roles[role]
    evaluation = evaluate_images(
        model,
        rows,
        trainer.processing_class,
        inference=inference,
        batch_size=args.per_device_eval_batch_size,
        accelerator=trainer.accelerator,
        detailed=True,
        pseudo_labeler=labeler_of(trainer.method),
    )
    chosen = {
        EXAMPLES: np.linspace(0, len(rows) - 1, min(NUM_EXAMPLES, len(rows)), dtype=int).tolist(),
        WORST: worst_images(evaluation.image_areas.numpy()),
    }
    # in every process: a sharded model gathers its parameters in each forward
    predictions = {
        name: list(predict_images(model, rows.select(indices)["image"], trainer.processing_class, inference))
        for name, indices in chosen.items()
    }
    if not args.should_save:
        return
    evaluation.save(folder, protocol(model, inference, role=role, steps=trainer.state.global_step, **facts))
    for name, indices in chosen.items():
        write_examples(
            folder / name,
            rows.select(indices),
            predictions[name],
            list(data.id2label.values()),
            data.palette,
        )
    write_model_card(folder)
    write_report([folder], folder / "report.html")
