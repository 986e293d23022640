"""The generator contract of every method, named options, full-size logits. No loss lives here."""

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from accelerate.utils import extract_model_from_parallel
from torch import Tensor, cat, float32, nn
from torch.nn.functional import interpolate
from transformers.utils import logging

from pos_hf.errors import InputError

logger = logging.get_logger(__name__)

Batch = Mapping[str, Mapping[str, Tensor]]
"""`{"labeled": {...}, "unlabeled": {...}}` on the device, pixel values normalised."""


class LossTerm(NamedTuple):
    """One term of one objective, ready for its own backward.

    Per objective the terms of a step add up to that objective's loss; the strategy's weights (1/2, 1/2 when
    uniform) do the halving of the published total.
    """

    objective: Literal["supervised", "unsupervised"]
    loss: Tensor
    """0-d, with graph."""
    statistics: Mapping[str, Tensor] = {}
    """Detached 0-d device tensors to log."""
    retain_graph: bool = False
    """A later term of this step goes back through the same graph."""


class Method(nn.Module, ABC):
    """How the two losses are made. Any state lives in buffers, so `state_dict` carries it."""

    uses_teacher: bool = True
    """The trainer keeps an EMA teacher and passes it to `losses`; otherwise `teacher` is None."""
    shared_forward: bool = False
    """The two objectives go back through one forward, so DDP's reducer cannot reduce them apart."""
    num_strong_views: int = 1
    """Strong views of each unlabeled image that the data side must make."""

    @abstractmethod
    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        """Yield the step's loss terms; the caller runs backward on each before it asks for the next.

        Args:
            student: The model in training mode, possibly wrapped for distributed training.
            teacher: The EMA model in evaluation mode without gradients, or None.
            batch: Labeled and unlabeled tensors on the device.
        """


def predict_logits(model: nn.Module, pixel_values: Tensor, feature_perturbation: str | None = None) -> Tensor:
    """Logits [N', C, H, W] at the size of `pixel_values` [N, 3, H, W], in float32 or wider.

    `feature_perturbation="channel_dropout"` doubles the rows: [clean; perturbed]. A model that offers no
    perturbation is run without one (the perturbed rows then repeat the clean ones) and this is logged once.
    """
    if feature_perturbation is None:
        logits = model(pixel_values).logits
    elif getattr(extract_model_from_parallel(model), "supports_feature_perturbation", False):
        logits = model(pixel_values, feature_perturbation=feature_perturbation).logits
    else:
        logger.warning_once(
            f"{type(extract_model_from_parallel(model)).__name__} offers no feature perturbation; "
            f"'{feature_perturbation}' is left out and the perturbed view equals the clean one."
        )
        logits = model(pixel_values).logits
        if feature_perturbation == "channel_dropout":
            logits = cat([logits, logits])
    if logits.dtype.itemsize < float32.itemsize:
        logits = logits.float()
    if logits.shape[-2:] != pixel_values.shape[-2:]:
        logits = interpolate(logits, pixel_values.shape[-2:], mode="bilinear", align_corners=False)
    return logits


def build(kind: str, table: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> Any:
    """`table[name](**options)`, or an InputError that names the nearest known name or option.

    Args:
        kind: What the table holds, for the message ("method", "threshold", ...).
    """
    if name not in table:
        raise InputError(
            f"Unknown {kind} '{name}'{_nearest(name, table)}; known: {', '.join(sorted(table))}."
        )
    known = inspect.signature(table[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f"Unknown option '{option}' of {kind} '{name}'{_nearest(option, known)}.")
    return table[name](**options)


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f", did you mean '{matches[0]}'?" if matches else ""
