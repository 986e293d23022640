"""The loop over a data set: images of any size, batched by shape, sharded over ranks, one reduction at the
end. How one image is predicted is in `inference`, what is counted in `metrics`."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from accelerate import Accelerator, DistributedType
from datasets import Dataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

import pos_hf
from pos_hf.evaluation.inference import Inference, class_probabilities, label_names, patch_size
from pos_hf.evaluation.metrics import IGNORE_INDEX, ConfusionMatrix, areas, scores

MAX_WAITING = 64
"""Images held back while batches of one shape fill up; bounds memory when every image has another size."""


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a labeled data set measured.

    Args:
        id2label: Name of each class.
        ids: Id of each image.
        counts: Confusion counts of the whole set, int64 [C+1, C+1], rows = label, columns = prediction.
        image_areas: Intersection, predicted and labeled pixels of each image and class, int64 [N, 3, C].
    """

    id2label: dict[int, str]
    ids: list[str]
    counts: Tensor
    image_areas: Tensor

    def scores(self) -> dict:
        """The scores of `metrics.scores` over all images."""
        return scores(self.counts, self.id2label)

    def save(self, folder: Path, protocol: dict[str, Any]) -> None:
        """Write metrics.json (scores, image count, protocol) and per_image.npz (what intervals need).

        Args:
            folder: An existing folder; the two files are replaced.
            protocol: Everything a reader must know to compare the numbers, JSON-serialisable.
        """
        report = {**_without_nan(self.scores()), "images": len(self.ids), "protocol": protocol}
        (folder / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
        np.savez_compressed(
            folder / "per_image.npz", ids=np.array(self.ids, dtype=str), areas=self.image_areas.numpy()
        )


def protocol(model: PreTrainedModel, inference: Inference | None = None, **facts: Any) -> dict[str, Any]:
    """How numbers were made: what a reader must know before comparing them with others.

    Args:
        model: The evaluated model.
        inference: The inference of the evaluation; the whole image by default.
        facts: What only the caller knows, for example data set, split hash, seed and steps.

    Returns:
        JSON-serialisable, for `Evaluation.save`.
    """
    inference = inference or Inference()
    return {
        **facts,
        **asdict(inference),
        "multiple": inference.multiple or patch_size(model),
        "ignore_index": IGNORE_INDEX,
        "absent_classes": "skipped in mean_iou, 0 in mean_iou_absent_zero",
        "versions": {
            "pos_hf": pos_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


class Prepared(NamedTuple):
    """One image ready for the model."""

    pixel_values: Tensor
    """float [3, H, W]."""
    labels: Tensor
    """int64 [H', W'] at native size; empty where the row has no mask."""
    size: tuple[int, int]
    """Native (height, width)."""


def evaluate_model(
    model: PreTrainedModel, dataset: Dataset, image_processor: BaseImageProcessor, **options: Any
) -> dict:
    """The scores of `evaluate_images`, for callers that need nothing else. Same arguments."""
    return evaluate_images(model, dataset, image_processor, **options).scores()


def evaluate_images(
    model: PreTrainedModel,
    dataset: Dataset,
    image_processor: BaseImageProcessor,
    *,
    inference: Inference | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    description: str = "Evaluating",
) -> Evaluation:
    """Predict every image at its native size and count its pixels.

    Args:
        model: The model on its device; left in the mode it came in.
        dataset: Rows `{"id": str, "image": PIL image, "mask": PIL image of class ids, 255 = ignored}`.
        image_processor: Turns one PIL image into `pixel_values` [1, 3, H, W].
        inference: The protocol; the whole image by default.
        batch_size: Images of one shape predicted together.
        num_workers: Processes that decode images.
        accelerator: Shares the images out over its processes and adds the counts up once at the end, so that
            every process returns the numbers of the whole set. None, or a sharded model (FSDP), evaluates
            every image in every process.
        description: Label of the progress bar.

    Returns:
        The evaluation of the whole data set.
    """
    id2label = label_names(model)
    matrix = ConfusionMatrix(len(id2label), device=model.device)
    image_areas = torch.zeros(len(dataset), 3, len(id2label), dtype=torch.int64, device=model.device)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    # the ranks of a sharded model gather its parameters in every forward, so all of them predict every image
    sharded_model = accelerator is not None and accelerator.distributed_type is DistributedType.FSDP
    mine = range(len(dataset)) if sharded_model else range(rank, len(dataset), world)
    rows = DataLoader(
        Subset(dataset, mine),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=partial(_prepare, image_processor=image_processor),
    )
    bar = tqdm(total=len(mine), desc=description, unit="img", disable=rank > 0, leave=False)
    was_training = model.training
    model.eval()
    for indices, batch in _batches_of_one_shape(zip(mine, rows, strict=True), batch_size):
        predictions = _predict(model, batch, inference or Inference())
        labels = torch.stack([item.labels for item in batch]).to(model.device)
        image_areas[indices] = areas(matrix.update(predictions, labels))
        bar.update(len(batch))
    bar.close()
    model.train(was_training)
    counts = matrix.counts
    if accelerator and not sharded_model:
        counts, image_areas = accelerator.reduce((counts, image_areas), "sum")
    return Evaluation(id2label, [str(i) for i in dataset["id"]], counts.cpu(), image_areas.cpu())


def predict_images(
    model: PreTrainedModel,
    images: Sequence[Image.Image],
    image_processor: BaseImageProcessor,
    inference: Inference | None = None,
) -> Iterator[np.ndarray]:
    """Predict images one by one, in order.

    Args:
        model: The model on its device; left in eval mode.
        images: PIL images of any size.
        image_processor: Turns one PIL image into `pixel_values` [1, 3, H, W].
        inference: The protocol; the whole image by default.

    Yields:
        Class ids at native size, uint8 [H, W].
    """
    model.eval()
    for image in images:
        prepared = _prepare({"image": image}, image_processor)
        yield _predict(model, [prepared], inference or Inference())[0].to("cpu", torch.uint8).numpy()


def _prepare(row: dict, image_processor: BaseImageProcessor) -> Prepared:
    image = row["image"].convert("RGB")
    pixel_values = image_processor(images=image, return_tensors="pt")["pixel_values"][0]
    labels = torch.tensor(np.asarray(row["mask"]) if "mask" in row else [], dtype=torch.int64)
    return Prepared(pixel_values, labels, (image.height, image.width))


def _batches_of_one_shape(
    rows: Iterator[tuple[int, Prepared]], batch_size: int
) -> Iterator[tuple[list[int], list[Prepared]]]:
    waiting: dict[tuple, dict[int, Prepared]] = defaultdict(dict)
    for index, item in rows:
        shape = (item.pixel_values.shape, item.size)
        waiting[shape][index] = item
        if len(waiting[shape]) < batch_size and sum(map(len, waiting.values())) < MAX_WAITING:
            continue
        fullest = max(waiting, key=lambda shape: len(waiting[shape]))
        batch = waiting.pop(fullest)
        yield list(batch), list(batch.values())
    for batch in waiting.values():
        yield list(batch), list(batch.values())


def _predict(model: PreTrainedModel, batch: list[Prepared], inference: Inference) -> Tensor:
    pixel_values = torch.stack([item.pixel_values for item in batch]).to(model.device, model.dtype)
    return class_probabilities(model, pixel_values, inference, batch[0].size).argmax(1)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: the score of an absent class is written as null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
