"""A Trainer of a student and its teacher: scored together, exported in one folder, pushed by an allow-list.

Nothing of gradients, and nothing of checkpoints, which are the student's as the Trainer knows it.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import BaseImageProcessor, PreTrainedModel, Trainer
from transformers.trainer_utils import PredictionOutput

from pos_hf.data import PairedDataset
from pos_hf.errors import InputError
from pos_hf.evaluation import Evaluation, predict_images
from pos_hf.files import write_manifest, written_aside
from pos_hf.hub import hub_errors
from pos_hf.methods import Method, StudentPair
from pos_hf.models.adapters import has_adapters, merged, save_adapter
from pos_hf.run_folder import ADAPTER_FOLDER, STATE_FILE, STUDENT_FOLDER

from .arguments import POSConfig
from .engines import refuse_inexact_engine, synchronise_batch_norm
from .evaluating import in_own_precision, logged_scores, scored, show_held_out
from .pictures import NUM_IMAGES, EvaluationPictures
from .pushing import push, write_card
from .refusals import refuse_what_has_no_meaning, refuse_without_held_out
from .teacher import EMATeacher


class TeacherStudentTrainer(Trainer):
    """What `POSTrainer` does with its two models when no step is taken.

    Args:
        model: the student, or two.
        args: the run's arguments.
        train_dataset: pairs of a labeled and an unlabeled image; told which views the method needs.
        eval_dataset: rows of `id`, `image`, `mask`, scored at native size, or several such by name.
        processing_class: the image processor.
        data_collator: items of `train_dataset` -> a batch.
        method: None takes `args.method`.
        kwargs: further arguments of `transformers.Trainer`.

    Raises:
        InputError: the engine or an argument cannot give exact gradients, or an argument has no meaning here.
    """

    args: POSConfig
    model: PreTrainedModel | StudentPair
    train_dataset: PairedDataset
    eval_dataset: Any
    processing_class: BaseImageProcessor
    facts: dict[str, Any]
    """What is known of the run for a model card."""

    def __init__(
        self,
        model: PreTrainedModel | StudentPair,
        args: POSConfig,
        train_dataset: PairedDataset,
        eval_dataset: Dataset | dict[str, Dataset] | None,
        processing_class: BaseImageProcessor | None,
        data_collator: Callable[[list[Any]], dict[str, Any]],
        method: Method | None,
        **kwargs: Any,
    ) -> None:
        processing_class = refuse_what_has_no_meaning(model, args, eval_dataset, processing_class, kwargs)
        self.method = method or args.get_method()
        refuse_without_held_out(self.method, args, eval_dataset)
        super().__init__(
            model=synchronise_batch_norm(model, args),
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset.for_method(self.method.num_strong_views, self.method.second_draw),
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        refuse_inexact_engine(self.accelerator, args)
        if self.is_fsdp_enabled and any(map(has_adapters, model.modules())):
            raise InputError(
                "adapters cannot be merged from FSDP's shards: train them under DDP, which is enough"
            )
        self.method.to(args.device)
        self.teacher = EMATeacher(self.model, args.teacher_decay) if self.method.uses_teacher else None
        self.pictures = EvaluationPictures(self.callback_handler)
        self.add_callback(self.pictures)

    # ---- Evaluation ----

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
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
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(rows, str):
            rows = {rows: self.eval_dataset[rows]}
        if isinstance(rows, dict):
            parts = [self.evaluate(part, None, f"{metric_key_prefix}_{name}") for name, part in rows.items()]
            return {name: value for metrics in parts for name, value in metrics.items()}
        with self.as_loaded():
            student, exported = self._scored(rows, range(min(NUM_IMAGES, len(rows)) * self.is_in_train))
            metrics = logged_scores(student, exported, self.method, self.state.log_history, metric_key_prefix)
            self.log(metrics)
            self.pictures.draw(rows, exported, self.exported_model)
            if self.is_in_train and self.method.needs_held_out:
                engine = self.args, self.processing_class
                show_held_out(self.method, self.exported_model, rows, *engine)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(
        self, test_dataset: Dataset, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Predict with the model that training is for, and score it where there are masks.

        Returns:
            Class ids at native size, a tuple of uint8 [H, W]; the masks likewise, or None; and the metrics
            as of `evaluate`, {} without masks.
        """
        with self.as_loaded():
            if "mask" not in test_dataset.column_names:
                images, inference = (row["image"] for row in test_dataset), self.args.get_inference()
                found = predict_images(self.exported_model, images, self.processing_class, inference)
                return PredictionOutput(tuple(found), None, {})  # type: ignore[arg-type]
            student, exported = self._scored(test_dataset, range(len(test_dataset)))
        metrics = logged_scores(student, exported, self.method, self.state.log_history, metric_key_prefix)
        maps = tuple(exported.predictions[i].labels for i in range(len(test_dataset)))
        masks = tuple(np.asarray(row["mask"], np.uint8) for row in test_dataset)
        return PredictionOutput(maps, masks, metrics)  # type: ignore[arg-type]

    def _scored(self, rows: Dataset, keep: range) -> tuple[Evaluation, Evaluation]:
        engine = self.args, self.processing_class, self.accelerator
        return scored(list(self.deployed.values()), rows, *engine, self.method, keep)

    def as_loaded(self) -> contextlib.AbstractContextManager:
        """While it is open both models are in the precision in which `pos-hf evaluate` will score them."""
        return in_own_precision(*self.networks)

    @property
    def networks(self) -> list[PreTrainedModel | StudentPair]:
        """The student, or two in one, and the teacher where there is one."""
        return [self.model, self.teacher.model] if self.teacher else [self.model]

    @property
    def deployed(self) -> dict[str, PreTrainedModel]:
        """The student (the first of two), and the teacher where there is one."""
        models = {"student": self.model} | ({"teacher": self.teacher.model} if self.teacher else {})
        return {name: m.first if isinstance(m, StudentPair) else m for name, m in models.items()}

    @property
    def exported_model(self) -> PreTrainedModel:
        """The model that training is for: the teacher, or the student of a method without one."""
        return list(self.deployed.values())[-1]

    # ---- What is written, and where it goes ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Export the trained model: the teacher where there is one, with the student in `student/` beside it.

        Adapters are merged into both; those of the trained model are in `adapter/`, too, in PEFT's files.

        Inside a checkpoint (`_internal_call`) the root stays the student, which the Trainer resumes from.
        """
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self.args.output_dir)
        # the process that writes has the folder aside for itself; the others take part in gathering weights
        with written_aside(folder) if self.args.should_save else contextlib.nullcontext(folder) as aside:
            self._export(merged(self.exported_model), aside)
            if self.teacher:
                self._export(merged(self.deployed["student"]), aside / STUDENT_FOLDER)
            if self.args.should_save:
                if has_adapters(self.exported_model):
                    save_adapter(self.exported_model, aside / ADAPTER_FOLDER)
                write_manifest(aside)

    def _export(self, model: PreTrainedModel, folder: Path) -> None:
        state_dict = self.accelerator.get_state_dict(model)
        if self.args.should_save:
            model.save_pretrained(folder, state_dict=state_dict)
            self.processing_class.save_pretrained(folder)

    def save_state(self) -> None:
        """Write the run's trainer_state.json, which holds its log, in one piece."""
        if self.is_world_process_zero():
            with written_aside(Path(self.args.output_dir)) as aside:
                self.state.save_to_json(str(aside / STATE_FILE))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As the Trainer's; where the Hub refuses or cannot be reached, that is one sentence (InputError)."""
        with hub_errors(self._repository):
            super().init_hf_repo(token, private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        license: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model and upload it with its card, and its scores where the run's folder holds any.

        Args as of the Trainer's; `license` is the Hub's identifier, for the card. Returns the repository's
        address, or its Future; None on other ranks than the first.

        Raises:
            InputError: the Hub refuses, or cannot be reached; the run's folder is complete.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model()
        self.save_state()
        if not self.is_world_process_zero():
            return None
        what = self.args, self.facts, self._repository
        message = commit_message or "End of training"
        job = push(*what, message=message, token=token, revision=revision, license=license)
        return job.result() if blocking else job

    def create_model_card(self, *args: Any, license: str | None = None, **kwargs: Any) -> None:
        """Write the card into the run's folder, which holds a saved model and state."""
        if self.is_world_process_zero():
            write_card(Path(self.args.output_dir), self.facts, self._repository, license)

    @property
    def _repository(self) -> str:
        # its full name once it is known to exist, before that what the user called it
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name
