"""The loop over a data set: images of any size, batched by shape, sharded over ranks, one reduction at the
end. How one image is predicted is in `inference`, what is counted in `results`."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from pos_hf.errors import InputError, TrainingStopped
from pos_hf.evaluation.inference import Inference, Pixels, Strip, joined, label_names, probability_strips
from pos_hf.evaluation.pseudo_labels import PseudoLabeler
from pos_hf.evaluation.results import Evaluation
from pos_hf.models.processors import normalise, statistics
from pos_hf.workers import outlive_sigterm

WAITING_BYTES = 256 * 2**20
"""Of images held back while batches of one shape fill up; bounds memory when every image has another size."""
OUT_OF_MEMORY = "can't allocate memory"  # PyTorch's words on a CPU, where the error has no type of its own
ADVISED_WINDOW = 512


class Prepared(NamedTuple):
    """One image as its processor resized it, normalised only on the model's device."""

    pixels: Tensor
    """uint8 [channels, H, W]."""
    labels: Tensor
    """uint8 [H', W'] at native size; empty where the row has no mask."""
    size: tuple[int, int]
    """Native (height, width)."""

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.labels.nbytes


def evaluate_images(
    model: PreTrainedModel, dataset: Dataset, image_processor: BaseImageProcessor, **options: Any
) -> Evaluation:
    """The evaluation of one model by `evaluate_models`. Same arguments."""
    (evaluation,) = evaluate_models([model], dataset, image_processor, **options)
    return evaluation


def evaluate_models(
    models: Sequence[PreTrainedModel],
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
    keep: Collection[int] = (),
) -> list[Evaluation]:
    """Read every image once, predict it at its native size with each model, and count its pixels.

    Args:
        models: On one device; left in the mode they came in.
        dataset: Rows `{"id": str, "image": PIL image, "mask": PIL image of class ids, 255 = ignored}`.
        image_processor: What the model needs to read an image.
        inference: The protocol; the whole image by default.
        batch_size: Images of one shape predicted together.
        num_workers: Processes that decode images.
        accelerator: Shares the images out over its processes and adds the counts up once at the end, so that
            every process returns the numbers of the whole set. None, or a sharded model (FSDP), evaluates
            every image in every process.
        description: Label of the progress bar.
        detailed: Also measure boundary IoU and calibration.
        pseudo_labeler: Also measure the pseudo-labels that it keeps.
        keep: Images whose predictions are kept, by their position.

    Returns:
        Each model's evaluation of the whole data set.
    """
    ids = row_ids(dataset)
    measured: dict[str, Any] = {"detailed": detailed, "pseudo_labeler": pseudo_labeler, "keep": keep}
    evaluations = [Evaluation(ids, label_names(model), model.device, **measured) for model in models]
    # the ranks of a sharded model gather its parameters in every forward, so all of them predict every image
    if accelerator and accelerator.distributed_type is DistributedType.FSDP:
        accelerator = None
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = range(rank, len(dataset), world)
    bar = tqdm(total=len(mine), desc=description, unit="img", disable=True if rank else None, leave=False)
    were_training = [model.training for model in models]
    for model in models:
        model.eval()
    for indices, batch in image_batches(dataset, image_processor, mine, batch_size, num_workers):
        labels = torch.stack([item.labels for item in batch]).to(models[0].device)
        for model, evaluation in zip(models, evaluations, strict=True):
            with memory_advice(model, len(batch), batch[0].size, inference):
                evaluation.add(indices, _predict(model, batch, image_processor, inference), labels)
        bar.update(len(batch))
    bar.close()
    for model, was_training in zip(models, were_training, strict=True):
        model.train(was_training)
    return [evaluation.finish(accelerator) for evaluation in evaluations]


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
        image_processor: Resizes them, where it does so.
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
        collate_fn=partial(prepare, image_processor=image_processor),
        worker_init_fn=outlive_sigterm,
        generator=torch.Generator(),  # evaluation in the middle of training must not touch its random numbers
    )
    waiting: dict[tuple, dict[int, Prepared]] = defaultdict(dict)
    for index, item in zip(indices, rows, strict=True):
        shape = (item.pixels.shape, item.size)
        waiting[shape][index] = item
        held = sum(item.nbytes for batch in waiting.values() for item in batch.values())
        if len(waiting[shape]) < batch_size and held < WAITING_BYTES:
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
        image_processor: What the model needs to read an image.
        inference: The protocol; the whole image by default.

    Yields:
        Class probabilities at native size on the model's device, float32 [1, C, H, W].
    """
    for item in _prepared(model, images, image_processor):
        with memory_advice(model, 1, item.size, inference):
            probabilities = joined(_predict(model, [item], image_processor, inference))
        yield probabilities


def predict_images(
    model: PreTrainedModel,
    images: Iterable[Image.Image | np.ndarray],
    image_processor: BaseImageProcessor,
    inference: Inference | None = None,
) -> Iterator[np.ndarray]:
    """The class ids of `predict_probabilities`, uint8 [H, W], made strip by strip. Same arguments."""
    for prediction, _ in predict_confident(model, images, image_processor, inference):
        yield prediction


def predict_confident(
    model: PreTrainedModel,
    images: Iterable[Image.Image | np.ndarray],
    image_processor: BaseImageProcessor,
    inference: Inference | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Class ids, uint8 [H, W], and their probabilities, float32 [H, W], strip by strip. Same arguments."""
    for item in _prepared(model, images, image_processor):
        prediction, confidence = np.empty(item.size, np.uint8), np.empty(item.size, np.float32)
        with memory_advice(model, 1, item.size, inference):
            pixels = item.pixels[None].to(model.device)
            for top, ids, highest in confident_strips(model, pixels, item.size, image_processor, inference):
                prediction[top : top + len(ids)], confidence[top : top + len(ids)] = ids, highest
        yield prediction, confidence


def confident_strips(
    model: PreTrainedModel,
    pixels: Pixels,
    size: tuple[int, int],
    image_processor: BaseImageProcessor,
    inference: Inference | None,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Predict one image from the top to the bottom.

    Args:
        model: In eval mode.
        pixels: The image, [1, channels, H, W].
        size: (height, width) of the result.
        image_processor: Its mean and standard deviation are applied.
        inference: The protocol; the whole image by default.

    Yields:
        The first row of a strip, its class ids, uint8 [rows, W], and their probabilities, float32.
    """
    for top, probabilities in _strips(model, pixels, size, image_processor, inference):
        highest, ids = probabilities[0].max(0)
        del probabilities  # before the next strip is made
        yield top, ids.to("cpu", torch.uint8).numpy(), highest.cpu().numpy()


def _prepared(
    model: PreTrainedModel, images: Iterable[Image.Image | np.ndarray], image_processor: BaseImageProcessor
) -> Iterator[Prepared]:
    model.eval()
    for image in images:
        yield prepare({"image": image}, image_processor)


def prepare(row: dict, image_processor: BaseImageProcessor) -> Prepared:
    """Resize the image of a row, whole, where its processor does so; its mask stays at native size."""
    image, layout = row["image"], None
    if isinstance(image, np.ndarray):
        layout = "channels_last"
    else:
        image = image.convert("RGB")
    # what the model does not see cannot be predicted, and padding would shift the rest
    moved: dict[str, Any] = {
        step: False for step in ("do_center_crop", "do_pad") if getattr(image_processor, step, False)
    }
    pixels = image_processor(
        images=image,
        return_tensors="pt",
        input_data_format=layout,
        do_rescale=False,
        do_normalize=False,
        **moved,
    )["pixel_values"][0]
    labels = torch.tensor(np.asarray(row["mask"]) if "mask" in row else [], dtype=torch.uint8)
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
    return Prepared(pixels, labels, (height, width))


def _predict(
    model: PreTrainedModel,
    batch: list[Prepared],
    image_processor: BaseImageProcessor,
    inference: Inference | None,
) -> Iterator[Strip]:
    pixels = torch.stack([item.pixels for item in batch]).to(model.device)
    return _strips(model, pixels, batch[0].size, image_processor, inference)


def _strips(
    model: PreTrainedModel,
    pixels: Pixels,
    size: tuple[int, int],
    image_processor: BaseImageProcessor,
    inference: Inference | None,
) -> Iterator[Strip]:
    expected = len(statistics(image_processor)[0])
    if expected not in (1, pixels.shape[1]):
        raise InputError(
            f"an image has {pixels.shape[1]} channels, but the model takes {expected}: give it images like "
            "those it was trained on"
        )
    return probability_strips(
        model,
        pixels,
        inference or Inference(),
        size,
        lambda part: normalise(part, image_processor).to(model.dtype),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch could not have the memory that it asked for, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or OUT_OF_MEMORY in str(error)


@contextmanager
def memory_advice(
    model: PreTrainedModel, count: int, size: tuple[int, int], inference: Inference | None
) -> Iterator[None]:
    """Turn exhausted memory into the advice that helps against large images.

    Args:
        model: What predicts.
        count: Images that it predicts at once.
        size: Their (height, width).
        inference: The protocol.

    Raises:
        TrainingStopped: In place of PyTorch's, Python's or Pillow's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) and not isinstance(error, MemoryError):
            raise
        window = (inference or Inference()).window
        remedies = [f"--window {ADVISED_WINDOW if window is None else max(window // 2, 2)}"]
        if inference and (len(inference.scales) > 1 or inference.flip):
            remedies.append("without --scales and --flip")
        if count > 1:
            remedies.append("one image at a time (--batch_size 1, in training per_device_eval_batch_size)")
        height, width = size
        raise TrainingStopped(
            f"the memory of {model.device} is too small to predict {count} of {width} x {height} pixels "
            f"at once: `pos-hf evaluate` and `pos-hf predict` need less with {', or '.join(remedies)}"
        ) from error
