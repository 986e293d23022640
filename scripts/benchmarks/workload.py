"""What the training benchmarks train: networks, pictures on disk, and `POSTrainer`s on them. No timing."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from data_pipeline import textured
from PIL import Image

from pos_hf import PairedDataset, POSConfig, POSTrainer, build_model
from pos_hf.data import Views
from pos_hf.data.decoding import rows_to_dataset
from pos_hf.models import default_image_processor


class Workload(NamedTuple):
    """A published recipe: preset, method, crop in pixels, learning rates, images of each set a step."""

    preset: str
    method: str
    crop: int
    learning_rate: float
    head_multiplier: float
    batch: int


WORKLOADS = {
    "dinov2_small": Workload("dinov2_dpt_small", "unimatch_v2", 518, 5e-6, 40, 8),
    "dinov2_base": Workload("dinov2_dpt_base", "unimatch_v2", 518, 5e-6, 40, 8),
    "resnet101": Workload("deeplabv3plus_resnet101s", "unimatch_v1", 321, 1e-3, 10, 8),
    # for smoke tests and the curves on a CPU, from random weights
    "dinov2_tiny": Workload("dinov2_dpt_tiny", "unimatch_v2", 64, 5e-4, 1, 4),
    "resnet_tiny": Workload("deeplabv3plus_tiny", "unimatch_v1", 64, 1e-2, 10, 4),
}
CLASSES = {index: f"class {index}" for index in range(21)}


class Pictures(NamedTuple):
    """Textured pictures and their masks of blocks, as files."""

    images: list[Path]
    masks: list[Path]


def draw_pictures(folder, sizes):
    """Write pictures of these (width, height) as JPEG, and masks with a strip of ignored pixels as PNG."""
    pictures = Pictures([], [])
    rng = np.random.default_rng(0)
    for index, (width, height) in enumerate(sizes):
        pictures.images.append(Path(folder) / f"{index}.jpg")
        pictures.masks.append(Path(folder) / f"{index}.png")
        textured(width, height, index).save(pictures.images[-1])
        blocks = rng.integers(0, len(CLASSES), (height // 32 + 1, width // 32 + 1), dtype=np.uint8)
        mask = blocks.repeat(32, 0).repeat(32, 1)[:height, :width]
        mask[:4] = 255
        Image.fromarray(mask).save(pictures.masks[-1])
    return pictures


def our_dataset(pictures, crop, second_draw, device_views):
    names = [path.stem for path in pictures.images]
    return PairedDataset(
        rows_to_dataset(names, pictures.images, pictures.masks),
        rows_to_dataset(names, pictures.images),
        Views(crop, num_strong_views=2, on_device=device_views),
        seed=0,
        second_draw=second_draw,
    )


def build_network(workload):
    """The recipe's network with the same random weights each time."""
    torch.manual_seed(0)
    return build_model(workload.preset, CLASSES)


def our_trainer(workload, model, dataset, max_steps, callback, **arguments):
    """A `POSTrainer` as the published recipe sets it.

    Args:
        workload: the recipe.
        model: the student.
        dataset: pairs of a labeled and an unlabeled image.
        max_steps: length of the run and of its schedule.
        callback: told of every step.
        arguments: of POSConfig.
    """
    sgd = {"optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 1e-4}
    defaults = {
        "output_dir": tempfile.mkdtemp(),
        "method": workload.method,
        "learning_rate": workload.learning_rate,
        "head_learning_rate_multiplier": workload.head_multiplier,
        "max_steps": max_steps,
        "logging_steps": 10**6,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": not torch.cuda.is_available(),  # bf16 without a GPU has to be asked for so
        "disable_tqdm": True,
    } | (sgd if workload.method == "unimatch_v1" else {})
    return POSTrainer(
        model,
        POSConfig(**(defaults | arguments)),
        dataset,
        processing_class=default_image_processor(),
        callbacks=[callback],
    )
