"""How pseudo-labels change over training: one small picture at every evaluation, which the report lines up.
Needs torch, so `pos_hf.reporting` does not import it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from PIL import Image
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pos_hf.evaluation import PseudoLabeler, labeler_of, predict_probabilities
from pos_hf.files import written_aside
from pos_hf.reporting.pictures import IGNORED, Palette, displayed, mask_picture
from pos_hf.run_folder import PSEUDO_LABELS

if TYPE_CHECKING:
    from pos_hf.training import POSTrainer

NUM_IMAGES = 3
TILE_WIDTH = 128
"""Pixels."""
GAP, GAP_COLOUR = 4, (150, 150, 150)
DROPPED = (225, 120)
"""Grey levels of the stripes where no pseudo-label is kept."""


class PseudoLabelPictures(TrainerCallback):
    """Writes `pseudo_labels/step-<step>.png` into the run's folder at every evaluation, in the main process.

    Args:
        trainer: Whose exported model (the teacher where there is one) makes the pseudo-labels.
        rows: Labeled images that training does not see; the first `NUM_IMAGES` are drawn.
        palette: Colour of each class.
    """

    def __init__(self, trainer: "POSTrainer", rows: Dataset, palette: Palette) -> None:
        self.trainer = trainer
        self.rows = rows.select(range(min(NUM_IMAGES, len(rows))))
        self.palette = palette

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Predict the images in every process, as a sharded model must, and write one picture."""
        labeler = labeler_of(self.trainer.method)
        if labeler is None:
            return
        maps = predict_probabilities(
            self.trainer.exported_model,
            self.rows["image"],
            self.trainer.processing_class,
            self.trainer.args.get_inference(),
        )
        picture = pseudo_label_picture(self.rows, maps, labeler, self.palette)
        if args.should_save:
            with written_aside(Path(self.trainer.args.output_dir)) as aside:
                (aside / PSEUDO_LABELS).mkdir()
                picture.save(aside / PSEUDO_LABELS / f"step-{state.global_step:06d}.png")


def pseudo_label_picture(
    rows: Iterable[dict], maps: Iterable[Tensor], labeler: PseudoLabeler, palette: Palette
) -> Image.Image:
    """One row an image: the image, its true labels, the kept pseudo-labels, and the confidence (white is 1).

    Args:
        rows: `{"image": PIL image, "mask": PIL image of class ids}`.
        maps: Class probabilities of each, float [1, C, H, W].
        labeler: Keeps the pseudo-labels; striped where it keeps none.
        palette: Colour of each class.
    """
    lines = []
    for row, probabilities in zip(rows, maps, strict=True):
        kept = labeler(probabilities)[0].cpu().numpy()
        is_dropped = kept == probabilities.shape[1]
        confidence = (255 * probabilities[0].amax(0)).byte().cpu().numpy()
        height = round(TILE_WIDTH * kept.shape[0] / kept.shape[1])
        image = displayed(row["image"]).resize((TILE_WIDTH, height))
        truth = mask_picture(np.asarray(row["mask"]), palette)
        labels = mask_picture(np.where(is_dropped, IGNORED, kept), palette)
        truth, labels = (
            mask.convert("RGB").resize((TILE_WIDTH, height), Image.Resampling.NEAREST)
            for mask in (truth, labels)
        )
        is_dropped = Image.fromarray(is_dropped).resize((TILE_WIDTH, height), Image.Resampling.NEAREST)
        labels.paste(_stripes(height), mask=is_dropped)
        lines.append([image, truth, labels, Image.fromarray(confidence).resize((TILE_WIDTH, height))])
    heights = [line[0].height + GAP for line in lines]
    canvas = Image.new("RGB", (4 * (TILE_WIDTH + GAP), sum(heights)), GAP_COLOUR)
    for i, line in enumerate(lines):
        for j, tile in enumerate(line):
            canvas.paste(tile, (j * (TILE_WIDTH + GAP), sum(heights[:i])))
    return canvas


def _stripes(height: int) -> Image.Image:
    across = np.add.outer(np.arange(height), np.arange(TILE_WIDTH)) // 4 % 2
    return Image.fromarray(np.where(across, *DROPPED).astype(np.uint8)).convert("RGB")
