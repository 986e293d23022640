"""The loop over a data set: images of any size, batched by shape, sharded over ranks, one reduction at the
end. How one image is predicted is in `inference`, what is counted in `results`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from datasets import Dataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.data.segmentation_data import row_ids
from pos_hf.evaluation.inference import Inference, class_probabilities, label_names
from pos_hf.evaluation.pseudo_labels import PseudoLabeler
from pos_hf.evaluation.results import Evaluation
from pos_hf.workers import outlive_sigterm

MAX_WAITING = 64
"""Images held back while batches of one shape fill up; bounds memory when every image has another size."""


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
    detailed: bool = False,
    pseudo_labeler: PseudoLabeler | None = None,
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
        detailed: Also measure boundary IoU and calibration.
        pseudo_labeler: Also measure the pseudo-labels that it keeps.

    Returns:
        The evaluation of the whole data set.
    """
    evaluation = Evaluation(
        row_ids(dataset),
        label_names(model),
        model.device,
        detailed=detailed,
        pseudo_labeler=pseudo_labeler,
    )
    # the ranks of a sharded model gather its parameters in every forward, so all of them predict every image
    if accelerator and accelerator.distributed_type is DistributedType.FSDP:
        accelerator = None
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = range(rank, len(dataset), world)
    bar = tqdm(total=len(mine), desc=description, unit="img", disable=rank > 0, leave=False)
    was_training = model.training
    model.eval()
    for indices, batch in image_batches(dataset, image_processor, mine, batch_size, num_workers):
        labels = torch.stack([item.labels for item in batch]).to(model.device)
        evaluation.add(indices, _predict(model, batch, inference or Inference()), labels)
        bar.update(len(batch))
    bar.close()
    model.train(was_training)
    return evaluation.finish(accelerator)


def image_batches(
    dataset: Dataset,
    image_processor: BaseImageProcessor,
    indices: Sequence[int],
    batch_size: int,
    num_workers: int = 0,
) -> Iterator[tuple[list[int], list[Prepared]]]:
    """Images in batches of one shape, in about their own order.

    Args:
        dataset: Rows of `image` and perhaps `mask`.
        image_processor: Turns one PIL image into `pixel_values` [1, 3, H, W].
        indices: Rows to take.
        batch_size: Largest batch.
        num_workers: Processes that decode images.

    Yields:
        Indices and images of a batch.
    """
    rows = DataLoader(
        Subset(dataset, indices),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=partial(_prepare, image_processor=image_processor),
        worker_init_fn=outlive_sigterm,
        generator=torch.Generator(),  # evaluation in the middle of training must not touch its random numbers
    )
    waiting: dict[tuple, dict[int, Prepared]] = defaultdict(dict)
    for index, item in zip(indices, rows, strict=True):
        shape = (item.pixel_values.shape, item.size)
        waiting[shape][index] = item
        if len(waiting[shape]) < batch_size and sum(map(len, waiting.values())) < MAX_WAITING:
            continue
        fullest = max(waiting, key=lambda shape: len(waiting[shape]))
        batch = waiting.pop(fullest)
        yield list(batch), list(batch.values())
    for batch in waiting.values():
        yield list(batch), list(batch.values())


def predict_probabilities(
    model: PreTrainedModel,
    images: Iterable[Image.Image | np.ndarray],
    image_processor: BaseImageProcessor,
    inference: Inference | None = None,
) -> Iterator[Tensor]:
    """Predict images one by one, in order.

    Args:
        model: The model on its device; left in eval mode.
        images: PIL images, or uint8 arrays [H, W, channels], of any size.
        image_processor: Turns one PIL image into `pixel_values` [1, 3, H, W].
        inference: The protocol; the whole image by default.

    Yields:
        Class probabilities at native size on the model's device, float32 [1, C, H, W].
    """
    model.eval()
    for image in images:
        yield _predict(model, [_prepare({"image": image}, image_processor)], inference or Inference())


def predict_images(
    model: PreTrainedModel,
    images: Iterable[Image.Image | np.ndarray],
    image_processor: BaseImageProcessor,
    inference: Inference | None = None,
) -> Iterator[np.ndarray]:
    """The class ids of `predict_probabilities`, uint8 [H, W]. Same arguments."""
    for probabilities in predict_probabilities(model, images, image_processor, inference):
        yield probabilities[0].argmax(0).to("cpu", torch.uint8).numpy()


def _prepare(row: dict, image_processor: BaseImageProcessor) -> Prepared:
    image, layout = row["image"], None
    if isinstance(image, np.ndarray):
        layout = "channels_last"
    else:
        image = image.convert("RGB")
    pixel_values = image_processor(images=image, return_tensors="pt", input_data_format=layout)[
        "pixel_values"
    ][0]
    labels = torch.tensor(np.asarray(row["mask"]) if "mask" in row else [], dtype=torch.int64)
    height, width = np.asarray(image).shape[:2]
    return Prepared(pixel_values, labels, (height, width))


def _predict(model: PreTrainedModel, batch: list[Prepared], inference: Inference) -> Tensor:
    pixel_values = torch.stack([item.pixel_values for item in batch]).to(model.device, model.dtype)
    return class_probabilities(model, pixel_values, inference, batch[0].size)
