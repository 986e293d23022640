"""Pictures for experiment trackers: predictions and pseudo-labels at every evaluation. Numbers are logged by
transformers' own callbacks, which `report_to` switches on."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from pos_hf.evaluation import label_names, labeler_of, palette_of, predict_probabilities
from pos_hf.reporting.pictures import displayed, overlay, with_legend
from pos_hf.reporting.pseudo_labels import pseudo_label_picture

if TYPE_CHECKING:
    from .trainer import POSTrainer

NUM_IMAGES = 4
TRACKERS = (TensorBoardCallback, WandbCallback, TrackioCallback)
"""Those that take pictures."""


class TrackerPictures(TrainerCallback):
    """Sends the first evaluation images to the trackers, with their predictions and pseudo-labels.

    Does nothing where no tracker that takes pictures is on.

    Args:
        trainer: whose exported model (the teacher where there is one) predicts, and whose trackers are told.
    """

    def __init__(self, trainer: "POSTrainer") -> None:
        self.trainer = trainer

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Predict in every process, as a sharded model must, and send from the main one."""
        trainer = self.trainer
        trackers = [
            callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TRACKERS)
        ]
        rows: Any = trainer.eval_dataset
        if not trackers or rows is None:
            return
        if isinstance(rows, dict):
            rows = next(iter(rows.values()))
        rows = rows.select(range(min(NUM_IMAGES, len(rows))))
        model = trainer.exported_model
        maps = list(predict_probabilities(model, rows["image"], trainer.processing_class))
        if not state.is_world_process_zero:
            return
        names = list(label_names(model).values())
        palette = palette_of(model)
        pictures = {}
        for row, probabilities in zip(rows, maps, strict=True):
            mask = probabilities[0].argmax(0).byte().cpu().numpy()
            shown = overlay(displayed(row["image"]), mask, palette)
            pictures[f"predictions/{row['id']}"] = with_legend(shown, mask, names, palette)
        if labeler := labeler_of(trainer.method):
            pictures["pseudo_labels"] = pseudo_label_picture(rows, maps, labeler, palette)
        for tracker in trackers:
            send_pictures(tracker, pictures, state.global_step)


def send_pictures(tracker: Any, pictures: dict[str, Image.Image], step: int) -> None:
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
