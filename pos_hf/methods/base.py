"""The generator contract of every method, and full-size logits of any model. No unsupervised loss here."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from accelerate.utils import extract_model_from_parallel
from torch import Tensor, cat, float32, nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.utils import logging

from pos_hf.balancing import Objective
from pos_hf.methods.losses import SUPERVISED_LOSSES
from pos_hf.named import Spec, build

logger = logging.get_logger(__name__)

Batch = Mapping[str, Mapping[str, Tensor]]
"""`{"labeled": {...}, "unlabeled": {...}}` on the device, pixel values normalised."""


class LossTerm(NamedTuple):
    """One term of one objective, ready for its own backward.

    Per objective the terms of a step add up to that objective's loss; the strategy's weights (1/2, 1/2 when
    uniform) do the halving of the published total.
    """

    objective: Objective
    loss: Tensor
    """0-d, with graph."""
    statistics: Mapping[str, Tensor] = {}
    """Detached 0-d device tensors to log."""
    retain_graph: bool = False
    """The next term of this step goes back through the same graph."""


class Method(nn.Module, ABC):
    """How the two losses are made. Any state lives in buffers, so `state_dict` carries it.

    Args:
        supervised_loss: "cross_entropy", "ohem", or `{"name": "ohem", "min_kept": ...}`.
    """

    objectives: tuple[Objective, ...] = ("supervised", "unsupervised")
    """The objectives that `losses` yields."""
    uses_teacher: bool = True
    """The trainer keeps an EMA teacher and passes it to `losses`; otherwise `teacher` is None."""
    shared_forward: bool = False
    """The two objectives go back through one forward, so DDP's reducer cannot reduce them apart."""
    num_strong_views: int = 1
    """Strong views of each unlabeled image that the data side must make."""
    second_draw: bool = False
    """The batch must hold `"partner"`: a second random draw of the same unlabeled images, same keys."""
    num_students: int = 1
    """2: the student is a `StudentPair`."""
    needs_held_out: bool = False
    """The trainer shows `observe_held_out` the evaluation's images, which training must not learn from."""
    adjusts_rare_classes: bool = False
    """L_u does not unlearn a class of which no pixel is confident."""
    progress: float = 0.0
    """Share of the optimizer steps done; the trainer sets it before each step (ramps, percentiles)."""

    def __init__(self, supervised_loss: Spec = "cross_entropy") -> None:
        super().__init__()
        self.labeled_criterion = build("supervised loss", SUPERVISED_LOSSES, supervised_loss)

    @abstractmethod
    def losses(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Iterator[LossTerm]:
        """Yield the step's loss terms; the caller runs backward on each before it asks for the next.

        With fixed weights a term that retains its graph waits for the next one's backward.

        Args:
            student: The model in training mode, possibly wrapped for distributed training.
            teacher: The EMA model in evaluation mode without gradients, or None.
            batch: Labeled and unlabeled tensors on the device.
        """

    def require_length(self, num_steps: int) -> None:
        """Raise an InputError where a run of so many optimizer steps is too short for the method's state."""

    def observe_held_out(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Look at the exported model's probabilities [N, C, H, W] of held-out images and at their labels."""

    def supervised_loss(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        """The labeled images' loss (Eq. 1), 0-d, from logits [N, C, H, W] and labels [N, H, W]."""
        return self.labeled_criterion(logits_NCHW, labels_NHW)

    def supervised_term(self, student: nn.Module, labeled: Mapping[str, Tensor]) -> LossTerm:
        """The supervised objective from its own forward of the labeled images."""
        logits = predict_logits(student, labeled["pixel_values"])
        return LossTerm("supervised", self.supervised_loss(logits, labeled["labels"]))


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Forwards inside leave BatchNorm's running statistics alone; they still normalise by their own batch.

    For strong views that have a forward of their own: the exported model sees clean images, and statistics
    that mix both kinds cost it points.
    """
    norms = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def predict_logits(
    model: nn.Module, pixel_values: Tensor, feature_perturbation: str | None = None, perturb_from: int = 0
) -> Tensor:
    """Logits [N', C, H, W] at the size of `pixel_values` [N, 3, H, W], in float32 or wider.

    Args:
        model: Anything that returns `.logits`; smaller logits are resized (bilinear, align_corners=False).
        pixel_values: Normalised images.
        feature_perturbation: As in our models' `forward`. A model that offers none is run without, which is
            logged once; the rows that "channel_dropout" appends then repeat the clean ones.
        perturb_from: The first row that "channel_dropout" copies.

    Returns:
        As many rows as images, more with "channel_dropout" ([clean; perturbed]) or from a `StudentPair`.
    """
    if feature_perturbation is None:
        logits = model(pixel_values).logits
    else:
        logits = _perturbed_logits(model, pixel_values, feature_perturbation, perturb_from)
    if logits.dtype.itemsize < float32.itemsize:
        logits = logits.float()
    if logits.shape[-2:] != pixel_values.shape[-2:]:
        logits = interpolate(logits, pixel_values.shape[-2:], mode="bilinear", align_corners=False)
    return logits


def _perturbed_logits(
    model: nn.Module, pixel_values: Tensor, feature_perturbation: str, perturb_from: int
) -> Tensor:
    # without keep_torch_compile=False accelerate would take DDP out of a compiled model, in place
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    if getattr(inner, "supports_feature_perturbation", False):
        return model(
            pixel_values, feature_perturbation=feature_perturbation, perturb_from=perturb_from
        ).logits
    logger.warning_once(
        f"{type(inner).__name__} offers no feature perturbation: '{feature_perturbation}' is left out."
    )
    logits = model(pixel_values).logits
    return cat([logits, logits[perturb_from:]]) if feature_perturbation == "channel_dropout" else logits
