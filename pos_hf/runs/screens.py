"""The words of a run's first and last screen. How they are set is in training/console.py."""

import math
from collections.abc import Sequence
from pathlib import Path

from pos_hf.data import DataArguments, SegmentationData
from pos_hf.reporting.intervals import mean_iou_interval
from pos_hf.run_folder import REPORT_FILE, Run, read_runs
from pos_hf.runs.config import ModelArguments
from pos_hf.training import POSTrainer
from pos_hf.training.console import RunConsole, duration


def show_start(
    trainer: POSTrainer, model_args: ModelArguments, data_args: DataArguments, data: SegmentationData
) -> None:
    """Say what is about to be trained.

    Args:
        trainer: before training.
        model_args: the network.
        data_args: the views.
        data: its roles.
    """
    args = trainer.args
    counts = {"labeled": data.labeled, "unlabeled": data.unlabeled, **data.masked_roles}
    carved = (
        " (set aside from the labels)" if data.selection is not None and data_args.selection_share else ""
    )
    images = ", ".join(
        f"{len(rows):,} {role}" + carved * (role == "selection") for role, rows in counts.items()
    )
    parameters, trained = (
        sum(p.numel() for p in trainer.deployed["student"].parameters() if p.requires_grad or frozen_too)
        for frozen_too in (True, False)
    )
    part = f", {trained / 1e6:.1f} million trained" if trained < parameters else ""
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    images_a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    pair = "" if len(trainer.method.objectives) == 1 else f" + {trainer.facts['strategy']}"
    processes = "" if args.world_size == 1 else f", {args.world_size} processes"
    trainer.console.show_summary(
        {
            "data": f"{data.name}: {images} images",
            "classes": _listed(list(data.id2label.values())),
            "model": f"{model_args.model}, {parameters / 1e6:.1f} million parameters{part}",
            "method": f"{args.method}{pair}",
            "on": f"{args.device.type}, {precision}{processes}",
            "steps": f"{num_steps(trainer):,} of {images_a_step} images at {data_args.crop_size} pixels",
            "folder": args.output_dir,
        }
    )


def num_steps(trainer: POSTrainer) -> int:
    """Optimizer steps of the whole run, before the Trainer has counted them."""
    args = trainer.args
    if args.max_steps > 0:
        return args.max_steps
    batches = len(trainer.get_train_dataloader())
    return math.ceil(args.num_train_epochs * -(-batches // args.gradient_accumulation_steps))


def show_end(console: RunConsole, folder: Path, seconds: float) -> None:
    """Say what came out of a run, and what to type next.

    Args:
        console: of its trainer.
        folder: finished.
        seconds: that training took.
    """
    (run,) = read_runs([folder])
    scores = _scores(run, seconds)
    files = {"model": str(folder)}
    if (folder / REPORT_FILE).exists():
        files = {"report": str(folder / REPORT_FILE), **files}
    commands = [
        f"pos-hf predict {folder} FOLDER_OF_IMAGES --out predictions",
        f"pos-hf report {folder} ANOTHER_RUN --out comparison.html",
        f"pos-hf push {folder} --repo USER/NAME",
    ]
    console.show_result(scores, _classes(run), files, commands)


def _scores(run: Run, seconds: float) -> dict[str, str]:
    scores = {}
    if run.metrics.get("mean_iou") is not None:
        words = f"{100 * run.metrics['mean_iou']:.1f} %"
        if run.image_areas is not None:
            _, low, high = mean_iou_interval(run.image_areas)
            words += (
                f"   95 % interval {100 * low:.1f} to {100 * high:.1f} over {len(run.image_areas)} images"
            )
        scores[f"{run.scored_role} mIoU"] = words
    else:
        scores["not scored"] = "there are neither test nor selection images"
    steps, students = run.series("eval_student_mean_iou")
    if len(students) and run.settings.get("facts.method") != "supervised":
        scores["student"] = (
            f"{100 * students[-1]:.1f} % of the {run.evaluated_images} at step {steps[-1]:.0f}"
        )
    scores["took"] = f"{duration(seconds)}, {max((entry['step'] for entry in run.log), default=0):,} steps"
    return scores


def _classes(run: Run) -> list[tuple[str, float, float | None]]:
    """Name, IoU in percent, and points since the first evaluation, if there were two of the same images."""
    classes = []
    for name, iou in run.class_iou.items():
        if math.isnan(iou):
            continue
        history = run.series(f"eval_iou_{name}")[1]
        is_change = len(history) > 1 and run.log_is_comparable
        change = 100 * float(history[-1] - history[0]) if is_change else None
        classes.append((name, 100 * iou, change))
    return classes


def _listed(names: Sequence[str], shown: int = 6) -> str:
    more = "" if len(names) <= shown else f" and {len(names) - shown} more"
    return f"{len(names)}: {', '.join(names[:shown])}{more}"
