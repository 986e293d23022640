"""How a trainer's two models are scored: as they will be loaded again, the teacher in the student's place."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32, get_mixed_precision_context_manager
from datasets import Dataset
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.evaluation import Evaluation, evaluate_models, labeler_of, logged_quality, predict_probabilities
from pos_hf.methods import Method

from .advice import advice_on_evaluation
from .arguments import POSConfig


def run_in_mixed_precision(model: Any, accelerator: Accelerator) -> None:
    """Run a model's forward under autocast from now on, as accelerate does with the model that it prepares.

    Args:
        model: changed in place, once.
        accelerator: of the run; one without mixed precision changes nothing.
    """
    if accelerator.native_amp and "forward" not in vars(model):
        autocast = get_mixed_precision_context_manager(True, accelerator.autocast_handler)
        model.forward = convert_outputs_to_fp32(autocast(model.forward))


@contextlib.contextmanager
def in_own_precision(*models: nn.Module) -> Iterator[None]:
    """Let models compute in the precision of their weights, as they do when they are loaded from a folder."""
    wrapped = {model: vars(model).pop("forward") for model in models if "forward" in vars(model)}
    try:
        yield
    finally:
        for model, forward in wrapped.items():
            model.forward = forward


def scored(
    models: Sequence[PreTrainedModel],
    rows: Dataset,
    args: POSConfig,
    processor: BaseImageProcessor,
    accelerator: Accelerator,
    method: Method,
    keep: Collection[int] = (),
) -> tuple[Evaluation, Evaluation]:
    """Evaluate the student, and the teacher where there is one, in one walk over the images.

    Args:
        models: the student first, the one that training is for last.
        rows: of `id`, `image` and `mask`.
        args: of the run.
        processor: reads the images.
        accelerator: shares them out.
        method: whose pseudo-labels are measured.
        keep: positions of the images whose predictions are kept.

    Returns:
        The student's evaluation, and that of the model that training is for; may be the same.
    """
    with advice_on_evaluation(args, "the exported model"):
        evaluations = evaluate_models(
            models,
            rows,
            processor,
            inference=args.get_inference(),
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            accelerator=accelerator,
            pseudo_labeler=labeler_of(method),
            keep=keep,
        )
    return evaluations[0], evaluations[-1]


def show_held_out(
    method: Method, model: PreTrainedModel, rows: Dataset, args: POSConfig, processor: BaseImageProcessor
) -> None:
    """Let a method that asks for it see held-out images, all of them on every rank.

    Args:
        method: its state is changed.
        model: predicts.
        rows: of `image` and `mask`.
        args: of the run.
        processor: reads the images.
    """
    images = (row["image"] for row in rows)
    masks = (torch.tensor(np.asarray(row["mask"]), device=model.device)[None].long() for row in rows)
    probabilities = predict_probabilities(model, images, processor, args.get_inference())
    method.observe_held_out(zip(probabilities, masks, strict=True))


def logged_scores(
    student: Evaluation,
    exported: Evaluation,
    method: Method,
    log_history: Sequence[dict[str, Any]],
    prefix: str,
) -> dict[str, float]:
    """What an evaluation logs.

    Args:
        student: of the student.
        exported: of the model that training is for; may be the same.
        method: that trains them.
        log_history: the Trainer's log before this evaluation.
        prefix: first part of every key.

    Returns:
        Scores as shares by name.
    """
    scores = exported.scores()
    names = ("mean_iou", "mean_iou_absent_zero", "overall_accuracy")
    metrics = {f"{prefix}_{name}": scores[name] for name in names}
    metrics[f"{prefix}_student_mean_iou"] = student.scores()["mean_iou"]
    for label, iou in scores["per_category_iou"].items():
        metrics[f"{prefix}_iou_{label}"] = iou
    if "pseudo_labels" in scores:
        quality = scores["pseudo_labels"], scores["per_category_iou"]
        metrics |= logged_quality(*quality, log_history, prefix, method.adjusts_rare_classes)
    return metrics
