"""The paper's Fig. 5: training loss and test mIoU around trained weights, and how sharp the minimum is. Needs
torch, so `pos_hf.reporting` does not import it; the figure is drawn in `figures`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.errors import InputError, first_sentence
from pos_hf.evaluation.evaluator import image_batches
from pos_hf.evaluation.inference import full_size_logits, label_names, patch_size
from pos_hf.evaluation.loading import weights_fingerprint
from pos_hf.evaluation.metrics import ConfusionMatrix, scores
from pos_hf.files import damaged, explained, write_text
from pos_hf.models.processors import normalise
from pos_hf.values import IGNORE_INDEX

RHO = 0.05
"""Radius of the ball in which sharpness is measured (SAM's published default)."""
POWER_STEPS = 20


class Batch(NamedTuple):
    """Images of one shape with their labels, on the model's device."""

    pixel_values: Tensor
    """Normalised, float [N, 3, H, W]."""
    labels: Tensor
    """int64 [N, H', W'], 255 = ignored."""


def batches_of(
    dataset: Dataset,
    image_processor: BaseImageProcessor,
    device: torch.device,
    images: int,
    batch_size: int = 8,
) -> list[Batch]:
    """The first images of a data set, whole and without augmentation."""
    indices = range(min(images, len(dataset)))
    return [
        Batch(
            normalise(torch.stack([item.pixels for item in batch]).to(device), image_processor),
            torch.stack([item.labels for item in batch]).to(device, torch.int64),
        )
        for _, batch in image_batches(dataset, image_processor, indices, batch_size)
    ]


def filter_normalised_direction(model: nn.Module, seed: int) -> list[Tensor]:
    """A random direction on the scale of the weights (Li et al., Visualizing the Loss Landscape, 2018).

    Gaussian; each filter (slice of the first dimension; of the second for a transposed convolution, one token
    of a position embedding) has the norm of the model's own filter. Biases, normalisation and scale vectors
    stay fixed.

    Args:
        model: Where the direction starts.
        seed: The same seed draws the same Gaussian for every model of one architecture.

    Returns:
        One float tensor for each of `model.parameters()`.
    """
    generator = torch.Generator().manual_seed(seed)
    transposed = [module.weight for module in model.modules() if isinstance(module, nn.ConvTranspose2d)]
    direction = []
    for weight in map(Tensor.detach, model.parameters()):
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        is_transposed = any(weight.data_ptr() == other.data_ptr() for other in transposed)
        filter_dim = 1 if is_transposed or (weight.ndim == 3 and len(weight) == 1) else 0
        others = [dim for dim in range(weight.ndim) if dim != filter_dim]
        if others:
            norm = partial(torch.linalg.vector_norm, dim=others, keepdim=True)
            direction.append(noise * norm(weight) / norm(noise))
        else:
            direction.append(torch.zeros_like(weight))
    return direction


@contextmanager
def moved(model: nn.Module, steps: Sequence[tuple[float, Sequence[Tensor]]]) -> Iterator[None]:
    """The model with weights w + sum of step * direction; w is back, bit for bit, afterwards."""
    weights = [weight.detach().clone() for weight in model.parameters()]
    with torch.no_grad():
        for step, direction in steps:
            for weight, change in zip(model.parameters(), direction, strict=True):
                weight.add_(change, alpha=step)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, original in zip(model.parameters(), weights, strict=True):
                weight.copy_(original)


def supervised_loss(model: PreTrainedModel, batches: Sequence[Batch]) -> Tensor:
    """Mean cross-entropy over all labeled pixels; 0-d, float32, with graph where gradients are on."""
    total, pixels = [], []
    for batch in batches:
        size = (batch.labels.shape[-2], batch.labels.shape[-1])
        logits = full_size_logits(model, batch.pixel_values, patch_size(model), size)
        total.append(cross_entropy(logits, batch.labels, ignore_index=IGNORE_INDEX, reduction="sum"))
        pixels.append((batch.labels != IGNORE_INDEX).sum())
    return torch.stack(total).sum() / torch.stack(pixels).sum()


@torch.no_grad()
def mean_iou_of(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """mIoU over the batches, absent classes skipped."""
    id2label = label_names(model)
    matrix = ConfusionMatrix(len(id2label), device=model.device)
    for batch in batches:
        size = (batch.labels.shape[-2], batch.labels.shape[-1])
        logits = full_size_logits(model, batch.pixel_values, patch_size(model), size)
        matrix.update(logits.argmax(1), batch.labels)
    return scores(matrix.counts, id2label)["mean_iou"]


def write_landscape(
    model: PreTrainedModel,
    train: Sequence[Batch],
    test: Sequence[Batch],
    file: Path,
    *,
    points: int = 21,
    dimensions: int = 1,
    radius: float = 1.0,
    seed: int = 0,
    description: str = "Landscape",
) -> None:
    """Measure a grid around the weights and the sharpness at its centre; an interrupted file is continued.

    Args:
        model: The trained model, in eval mode (stored BatchNorm statistics).
        train: Labeled images of the training loss.
        test: Images of the test mIoU.
        file: JSON lines: settings, one line a point, sharpness.
        points: Points along each axis; odd, so that the trained weights are one of them.
        dimensions: 1 or 2 directions.
        radius: Largest step along a direction; 1 is as long as the weights themselves.
        seed: Of the directions; use one seed for all runs that are compared.
        description: Label of the progress bar.

    Raises:
        InputError: `points` is even, or the file is damaged or was started with other settings or weights.
        TrainingStopped: the file cannot be written; a later call goes on with it.
    """
    if points % 2 == 0:
        raise InputError(f"{points} points along an axis miss the trained weights: give an odd number.")
    settings = {
        "points": points,
        "dimensions": dimensions,
        "radius": radius,
        "seed": seed,
        "train_images": sum(len(batch.labels) for batch in train),
        "test_images": sum(len(batch.labels) for batch in test),
        "weights": weights_fingerprint(model),
    }
    lines = _measured_lines(file)
    if lines and json.loads(lines[0]) != settings:
        raise InputError(f"'{file}' is of other settings or weights, {lines[0].strip()}: delete it first.")
    if lines and file.stat().st_size != len("".join(lines).encode()):
        write_text(file, "".join(lines))  # a line cut off by an interruption is measured again
    directions = [filter_normalised_direction(model, seed + axis) for axis in range(dimensions)]
    grid = list(product(np.linspace(-radius, radius, points).round(9).tolist(), repeat=dimensions))
    with explained(file), file.open("a" if lines else "w", buffering=1) as out:
        if not lines:
            out.write(json.dumps(settings) + "\n")
        done = max(len(lines) - 1, 0)
        for position in tqdm(grid[done:], desc=description, unit="point"):
            out.write(json.dumps(_measure(model, train, test, position, directions)) + "\n")
        if done <= len(grid):
            out.write(json.dumps(sharpness(model, train)) + "\n")


def _measured_lines(file: Path) -> list[str]:
    """The whole lines of an earlier measurement; [] where there is none."""
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        for line in lines:
            json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file, first_sentence(error)) from error
    return lines


def _measure(
    model: PreTrainedModel,
    train: Sequence[Batch],
    test: Sequence[Batch],
    position: Sequence[float],
    directions: Sequence[Sequence[Tensor]],
) -> dict[str, Any]:
    with moved(model, list(zip(position, directions, strict=True))), torch.no_grad():
        loss = supervised_loss(model, train).item()
        return {"position": list(position), "loss": loss, "mean_iou": mean_iou_of(model, test)}


def sharpness(model: PreTrainedModel, batches: Sequence[Batch]) -> dict[str, float]:
    """How fast the training loss rises around the weights.

    Args:
        model: In eval mode.
        batches: Labeled images.

    Returns:
        epsilon_sharpness: rise of the loss after one step of length `RHO` along the gradient (Foret et al.,
        SAM, ICLR 2021); top_eigenvalue: of the Hessian, by power iteration.
    """
    loss, gradient = loss_and_gradient(model, batches)
    length = torch.stack([part.square().sum() for part in gradient]).sum().sqrt()
    with moved(model, [(RHO / length.item() if length > 0 else 0.0, gradient)]), torch.no_grad():
        rise = supervised_loss(model, batches) - loss
    return {
        "epsilon_sharpness": rise.item(),
        "rho": RHO,
        "top_eigenvalue": top_hessian_eigenvalue(model, batches),
    }


def loss_and_gradient(model: PreTrainedModel, batches: Sequence[Batch]) -> tuple[Tensor, list[Tensor]]:
    """The loss, 0-d, and its gradient, one tensor for each of `model.parameters()` (zeros where unused)."""
    loss = supervised_loss(model, batches)
    gradient = torch.autograd.grad(loss, _trainable(model), materialize_grads=True)
    return loss.detach(), _with_frozen(model, gradient)


def top_hessian_eigenvalue(
    model: PreTrainedModel, batches: Sequence[Batch], steps: int = POWER_STEPS
) -> float:
    """The training loss's Hessian eigenvalue of largest magnitude, by power iteration."""
    weights = _trainable(model)
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(weight.shape, generator=generator).to(weight) for weight in weights]
    eigenvalue = torch.zeros(())
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
        loss = supervised_loss(model, batches)
        gradient = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        for _ in range(steps):
            norm = torch.stack([part.square().sum() for part in vector]).sum().sqrt()
            vector = [part / norm for part in vector]
            slope = torch.stack([(a * b).sum() for a, b in zip(gradient, vector, strict=True)]).sum()
            image = torch.autograd.grad(slope, weights, retain_graph=True, materialize_grads=True)
            eigenvalue = torch.stack([(a * b).sum() for a, b in zip(vector, image, strict=True)]).sum()
            vector = list(image)
    return eigenvalue.item()


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _with_frozen(model: nn.Module, gradient: Sequence[Tensor]) -> list[Tensor]:
    parts = iter(gradient)
    return [
        next(parts) if weight.requires_grad else torch.zeros_like(weight) for weight in model.parameters()
    ]
