"""One training run from its arguments to its finished folder. Parsing is in config.py, making in build.py."""

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils.logging import disable_progress_bar as hide_bars

from pos_hf.data import DataArguments, SegmentationData
from pos_hf.evaluation import evaluate_images, labeler_of, predict_images, protocol
from pos_hf.files import written_aside
from pos_hf.hub import write_model_card
from pos_hf.locks import check_held, locked
from pos_hf.models import PRESETS
from pos_hf.models.adapters import merged
from pos_hf.reporting import worst_images, write_examples
from pos_hf.run_folder import EXAMPLES, OUTPUTS, REPORT_FILE, RUN_FILE, WORST
from pos_hf.runs.build import evaluated_role, load_images, make_trainer
from pos_hf.runs.config import ModelArguments
from pos_hf.runs.preflight import (
    check_before_loading,
    check_crop,
    check_rows,
    check_sizes,
    settle_device_views,
)
from pos_hf.runs.resume import find_checkpoint, lies_in
from pos_hf.runs.screens import show_end, show_start
from pos_hf.training import POSConfig, POSTrainer
from pos_hf.training.advice import advice_on_evaluation, advice_on_failure
from pos_hf.training.checkpoints import checkpoints
from pos_hf.training.identity import refuse_another_run
from pos_hf.training.refusals import can_checkpoint

NUM_EXAMPLES = 6
# what of the data changes the mathematics, beside which images there are
VIEWS = (
    "crop_size",
    "scale_range",
    "unlabeled_ratio",
    "epoch_over",
    "class_aware_sampling",
    "rare_class_retries",
    "strong_views",
    "unnamed_area",
    "unannotated_images",
    "merge_labels",
    "mask_threshold",
    "mask_values",
    "mask_colors",
    "color_tolerance",
    "fold_masks",
    "split_pages",
    "reduce_labels",
    "image_range",
    "bands",
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
    if args.should_log:
        for sentence in data.assumptions:
            print(f"{data.name}: {sentence}", file=sys.stderr)
    check_rows(data, data_args, args)
    settle_device_views(data_args, args.device)
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
        show_start(trainer, model_args, data_args, data)
    hide_bars()  # "Writing model shards 100 %" would be the last words of a run
    began = time.monotonic()
    with advice_on_failure(args, data_args.crop_size, can_checkpoint(trainer.exported_model)):
        trainer.train(resume_from_checkpoint=checkpoint)
    check_held(folder)
    trainer.save_model()
    trainer.save_state()
    with trainer.as_loaded(), advice_on_evaluation(args, str(folder)):
        finish_folder(trainer, data, facts)
    if args.should_save:
        show_end(trainer.console, folder, time.monotonic() - began)
    if args.push_to_hub:
        trainer.push_to_hub()


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
        "evaluated_role": evaluated_role(data, trainer.method),
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
        "freeze_backbone": model_args.freeze_backbone,
        "peft": model_args.peft,
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
    args, model = trainer.args, merged(trainer.exported_model)  # as it was exported
    folder, inference = Path(args.output_dir), args.get_inference()
    role = "selection" if data.test is None else "test"
    if role not in data.masked_roles:
        if args.should_save:
            write_model_card(folder)
        return
    rows = data.masked_roles[role]
    examples = np.linspace(0, len(rows) - 1, min(NUM_EXAMPLES, len(rows)), dtype=int).tolist()
    evaluation = evaluate_images(
        model,
        rows,
        trainer.processing_class,
        inference=inference,
        batch_size=args.per_device_eval_batch_size,
        accelerator=trainer.accelerator,
        detailed=True,
        pseudo_labeler=labeler_of(trainer.method),
        keep=examples,
    )
    worst = worst_images(evaluation.image_areas.numpy())
    maps = {index: evaluation.predictions[index].labels for index in examples}
    # known when all are scored; in every process: a sharded model gathers its parameters in each forward
    again = [index for index in worst if index not in maps]
    images = rows.select(again)["image"]
    maps |= zip(again, predict_images(model, images, trainer.processing_class, inference), strict=True)
    if not args.should_save:
        return
    evaluation.save(folder, protocol(model, inference, role=role, steps=trainer.state.global_step, **facts))
    names = list(data.id2label.values())
    for name, indices in ((EXAMPLES, examples), (WORST, worst)):
        predictions = [maps[index] for index in indices]
        write_examples(folder / name, rows.select(indices), predictions, names, data.palette)
    write_model_card(folder)

    from pos_hf.reporting import write_report  # and matplotlib, which one process needs, and at the end

    write_report([folder], folder / REPORT_FILE)
