"""Pictures of the first evaluation images: pseudo-labels into the run's folder, predictions to trackers too.
Numbers are logged by transformers' own callbacks, which `report_to` switches on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback
from transformers.trainer_callback import CallbackHandler

from pos_hf.evaluation import Evaluation, label_names, palette_of
from pos_hf.files import written_aside
from pos_hf.reporting.pictures import displayed, overlay, with_legend
from pos_hf.reporting.pseudo_labels import pseudo_label_picture
from pos_hf.run_folder import PSEUDO_LABELS

NUM_IMAGES = 4
TRACKERS = (TensorBoardCallback, WandbCallback, TrackioCallback)
"""Those that take pictures."""


class EvaluationPictures(TrainerCallback):
    """Draws what the evaluation has predicted, in the main process.

    Args:
        handler: knows the trackers of the run.
    """

    def __init__(self, handler: CallbackHandler) -> None:
        self.handler = handler
        self._pictures: dict[str, Image.Image] = {}

    def draw(self, rows: Dataset, evaluation: Evaluation, model: PreTrainedModel) -> None:
        """Draw the predictions that an evaluation has kept, for the next `on_evaluate`.

        Args:
            rows: its images and masks.
            evaluation: of the model.
            model: names the classes and their colours.
        """
        self._pictures = {}
        if not evaluation.predictions:
            return
        names, palette = list(label_names(model).values()), palette_of(model)
        predictions = dict(sorted(evaluation.predictions.items()))
        shown = rows.select(list(predictions))
        for row, prediction in zip(shown, predictions.values(), strict=True):
            picture = overlay(displayed(row["image"]), prediction.labels, palette)
            name = f"predictions/{row['id']}"
            self._pictures[name] = with_legend(picture, prediction.labels, names, palette)
        if evaluation.pseudo_labeler:
            self._pictures[PSEUDO_LABELS] = pseudo_label_picture(shown, predictions.values(), palette)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the pseudo-labels' picture, and send all to the trackers."""
        if PSEUDO_LABELS in self._pictures and args.should_save:
            with written_aside(Path(args.output_dir or "")) as aside:
                file = aside / PSEUDO_LABELS / f"step-{state.global_step:06d}.png"
                file.parent.mkdir()
                self._pictures[PSEUDO_LABELS].save(file)
        if self._pictures and state.is_world_process_zero:
            for tracker in self.handler.callbacks:
                if isinstance(tracker, TRACKERS):
                    send_pictures(tracker, self._pictures, state.global_step)


def send_pictures(tracker: Any, pictures: Mapping[str, Image.Image], step: int) -> None:
    """Log pictures the way the tracker's callback logs numbers.

    Args:
        tracker: one of `TRACKERS`, after its first log.
        pictures: RGB, by name.
        step: optimizer step.
    """
    if isinstance(tracker, TensorBoardCallback):
        for name, picture in pictures.items():
            tracker.tb_writer.add_image(name, np.asarray(picture), step, dataformats="HWC")
        return
    module = tracker._wandb if isinstance(tracker, WandbCallback) else tracker._trackio
    images = {name: module.Image(picture) for name, picture in pictures.items()}
    module.log({**images, "train/global_step": step})
