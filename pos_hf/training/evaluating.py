"""How a trainer's two models are scored: as they will be loaded again, the teacher in the student's place."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32, get_mixed_precision_context_manager
from datasets import Dataset
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel, Trainer
from transformers.trainer_utils import PredictionOutput

from pos_hf.evaluation import evaluate_model, labeler_of, logged_quality, predict_images
from pos_hf.methods import Method, StudentPair

from .advice import advice_on_evaluation
from .arguments import POSConfig
from .teacher import EMATeacher


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


class EvaluatingTrainer(Trainer):
    """A Trainer that scores at native size what `POSTrainer` exports, and the student beside it."""

    args: POSConfig
    model: PreTrainedModel | StudentPair
    eval_dataset: Any
    processing_class: BaseImageProcessor
    method: Method
    teacher: EMATeacher | None

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the teacher (the student of a method without one) at native size, and the student beside it.

        Args:
            eval_dataset: rows, several by name, or such a name; None takes the trainer's.
            ignore_keys: unused.
            metric_key_prefix: first part of every key; of several data sets the name is the second.

        Returns:
            `<prefix>_mean_iou`, `_mean_iou_absent_zero`, `_overall_accuracy`, `_iou_<label>` as shares,
            `_student_mean_iou`, and of a method with pseudo-labels the keys of `logged_quality`.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = {dataset: self.eval_dataset[dataset]}
        if isinstance(dataset, dict):
            parts = {f"{metric_key_prefix}_{name}": rows for name, rows in dataset.items()}
            scores = [self.evaluate(rows, ignore_keys, prefix) for prefix, rows in parts.items()]
            return {name: value for metrics in scores for name, value in metrics.items()}
        with self.as_loaded():
            metrics = self._scores(dataset, metric_key_prefix)
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(
        self, test_dataset: Dataset, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Predict with the model that training is for, and score it where there are masks.

        Args:
            test_dataset: rows of `id`, `image` and perhaps `mask`.
            ignore_keys: unused.
            metric_key_prefix: first part of every key.

        Returns:
            predictions: class ids at native size, a tuple of uint8 [H, W]; label_ids: the masks likewise, or
            None; metrics: as `evaluate` returns them, {} without masks.
        """
        has_masks = "mask" in test_dataset.column_names
        with self.as_loaded():
            images, inference = (row["image"] for row in test_dataset), self.args.get_inference()
            predicted = predict_images(self.exported_model, images, self.processing_class, inference)
            predictions = tuple(predicted)
            metrics = self._scores(test_dataset, metric_key_prefix) if has_masks else {}
        masks = tuple(np.asarray(row["mask"], np.uint8) for row in test_dataset) if has_masks else None
        return PredictionOutput(predictions, masks, metrics)  # type: ignore[arg-type]

    def _scores(self, dataset: Dataset, prefix: str) -> dict[str, float]:
        score = partial(
            evaluate_model,
            dataset=dataset,
            image_processor=self.processing_class,
            inference=self.args.get_inference(),
            batch_size=self.args.per_device_eval_batch_size,
            num_workers=self.args.dataloader_num_workers,
            accelerator=self.accelerator,
            pseudo_labeler=labeler_of(self.method),
        )
        with advice_on_evaluation(self.args, "the exported model"):
            student = score(self._deployed(self.model))
            scores = score(self.exported_model) if self.teacher else student
        metrics = {
            f"{prefix}_{name}": scores[name]
            for name in ("mean_iou", "mean_iou_absent_zero", "overall_accuracy")
        }
        metrics[f"{prefix}_student_mean_iou"] = student["mean_iou"]
        for label, iou in scores["per_category_iou"].items():
            metrics[f"{prefix}_iou_{label}"] = iou
        if "pseudo_labels" in scores:
            history = self.state.log_history
            metrics |= logged_quality(scores["pseudo_labels"], scores["per_category_iou"], history, prefix)
        return metrics

    def as_loaded(self) -> contextlib.AbstractContextManager:
        """While it is open both models are in the precision in which `pos-hf evaluate` will score them."""
        return in_own_precision(self.model, *([self.teacher.model] if self.teacher else []))

    @property
    def exported_model(self) -> PreTrainedModel:
        """The model that training is for: the teacher, or the student of a method without one."""
        return self._deployed(self.teacher.model if self.teacher else self.model)

    @staticmethod
    def _deployed(model: PreTrainedModel | StudentPair) -> PreTrainedModel:
        return model.first if isinstance(model, StudentPair) else model
