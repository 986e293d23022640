"""Are the pseudo-labels that a rule keeps right? Measured on labeled images that training has not seen. How
pseudo-labels are made in training is in `pos_hf.methods`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor

from pos_hf.methods import Method, PseudoLabelMethod

logger = get_logger(__name__)

PRECISION_SHARE = 0.9
"""Alarm below this share of the best comparable precision so far."""
COVERAGE_SHARE = 0.5
"""Alarm below this share of the largest coverage so far."""

STARVED_EVALUATIONS = 3
"""Alarm when a class has had no pseudo-label at so many evaluations in a row."""
IOU_SHARE = 0.5
"""Alarm for a class whose IoU is below this share of its best, where that was at least `LEARNED_IOU`."""
LEARNED_IOU = 0.05

PseudoLabeler = Callable[[Tensor], Tensor]
"""Class probabilities, float [N, C, H, W] -> class ids, int64 [N, H, W]; C, which is no class, where none is
kept."""


def keep_confident(probabilities_NCHW: Tensor, threshold: float) -> Tensor:
    """A `PseudoLabeler` that keeps the pixels whose confidence reaches a threshold (Eq. 2)."""
    confidences, labels = probabilities_NCHW.max(1)
    return torch.where(confidences >= threshold, labels, probabilities_NCHW.shape[1])


def labeler_of(method: Method) -> PseudoLabeler | None:
    """Eq. 2 with a method's own confidence rule as it stands now.

    A fractional weight (SoftMatch) keeps its pixel from 1/2 on.

    Returns:
        None for a method without a confidence rule, and for a rule that has yet to see its first batch.
    """
    if not isinstance(method, PseudoLabelMethod):
        return None
    parts = [method.rule, *([method.alignment] if method.alignment else [])]
    if any(not buffer.numel() for part in parts for buffer in part.buffers()):
        return None

    def keep(probabilities_NCHW: Tensor) -> Tensor:
        if method.alignment:
            probabilities_NCHW = method.alignment.align(probabilities_NCHW)
        kept = method.rule.weights(probabilities_NCHW) >= 0.5
        return torch.where(kept, probabilities_NCHW.argmax(1), probabilities_NCHW.shape[1])

    return keep


def pseudo_label_quality(counts: Tensor, id2label: dict[int, str]) -> dict:
    """Precision and coverage of kept pseudo-labels.

    Args:
        counts: Confusion counts of a `PseudoLabeler`'s labels, int64 [C+1, C+1]; the last column holds what
            was not kept.
        id2label: Name of each class.

    Returns:
        precision (share of the kept pixels that are right), coverage (share of the pixels that are kept) and
        both per class as {name: float}: of the pixels kept as a class those that are it, of the pixels of a
        class those kept as anything.
    """
    table = counts.double().cpu()[:-1]
    kept, right = table[:, :-1], table.diagonal()
    names = [id2label[i] for i in range(len(id2label))]
    precision, coverage = right / kept.sum(0), kept.sum(1) / table.sum(1)
    return {
        "precision": (right.sum() / kept.sum()).item(),
        "coverage": (kept.sum() / table.sum()).item(),
        "per_category_precision": dict(zip(names, precision.tolist(), strict=True)),
        "per_category_coverage": dict(zip(names, coverage.tolist(), strict=True)),
    }


def logged_quality(
    quality: dict[str, Any],
    class_iou: dict[str, float],
    log_history: Sequence[dict[str, Any]],
    prefix: str,
    adjusts_rare_classes: bool = False,
) -> dict[str, float]:
    """What an evaluation logs about the pseudo-labels; the main process warns when they have become worse.

    Args:
        quality: Of `pseudo_label_quality`.
        class_iou: IoU of each label at this evaluation, NaN for an absent one.
        log_history: The Trainer's log before this evaluation.
        prefix: First part of every key.
        adjusts_rare_classes: Of the method; a class without a pseudo-label loses nothing then.

    Returns:
        `<prefix>_pseudo_label_precision`, `_coverage`, `_alarm` (the number of alarms), and the first two for
        each label.
    """

    def with_history(key: str, value: float) -> list[float]:
        return [*(entry[key] for entry in log_history if key in entry), value]

    values = {f"{prefix}_pseudo_label_{key}": quality[key] for key in ("precision", "coverage")}
    class_precision = quality["per_category_precision"]
    alarms = [
        collapse_alarm(*(with_history(key, value) for key, value in values.items())),
        None
        if adjusts_rare_classes
        else starvation_alarm(
            {
                label: with_history(f"{prefix}_pseudo_label_precision_{label}", value)
                for label, value in class_precision.items()
                if not math.isnan(class_iou[label])
            }
        ),
        unlearning_alarm(
            {label: with_history(f"{prefix}_iou_{label}", iou) for label, iou in class_iou.items()},
            adjusts_rare_classes,
        ),
    ]
    for alarm in filter(None, alarms):
        logger.warning(alarm)
    values[f"{prefix}_pseudo_label_alarm"] = float(sum(alarm is not None for alarm in alarms))
    for key in ("precision", "coverage"):
        for label, value in quality[f"per_category_{key}"].items():
            values[f"{prefix}_pseudo_label_{key}_{label}"] = value
    return values


def starvation_alarm(precisions: Mapping[str, Sequence[float]]) -> str | None:
    """Name the classes that the unlabeled images do not teach, while they teach the others in their place.

    Args:
        precisions: Precision of each class's pseudo-labels at each evaluation so far; NaN where no pixel was
            kept as that class.

    Returns:
        A sentence for the log, or None.
    """
    starved = [
        label
        for label, values in precisions.items()
        if len(values) >= STARVED_EVALUATIONS and all(math.isnan(v) for v in values[-STARVED_EVALUATIONS:])
    ]
    if not starved or len(starved) == len(precisions):  # with no pixel kept at all nothing is taken away
        return None
    return (
        f"No pixel was kept as {', '.join(starved)} at the last {STARVED_EVALUATIONS} evaluations: the "
        "unlabeled images teach the other classes in their place. Set `logit_adjustment: true` in "
        "method_options, or label more images that show them."
    )


def unlearning_alarm(ious: Mapping[str, Sequence[float]], adjusts_rare_classes: bool = False) -> str | None:
    """Name the classes that training has unlearned.

    Args:
        ious: IoU of each class at each evaluation so far, NaN where it was absent.
        adjusts_rare_classes: Of the method, which need not be told to.

    Returns:
        A sentence for the log, or None.
    """
    unlearned = []
    for label, values in ious.items():
        best = max((value for value in values if not math.isnan(value)), default=0.0)
        if best >= LEARNED_IOU and values[-1] < IOU_SHARE * best:
            unlearned.append(f"{label} ({100 * values[-1]:.0f} after {100 * best:.0f} %)")
    if not unlearned:
        return None
    adjust = "" if adjusts_rare_classes else "set `logit_adjustment: true` in method_options, or "
    remedy = f"{adjust}compare with `--method supervised`."
    return (
        f"The IoU of {', '.join(unlearned)} has fallen: pseudo-labels may be taking these classes away. "
        f"{remedy[0].upper()}{remedy[1:]}"
    )


def collapse_alarm(precisions: Sequence[float], coverages: Sequence[float]) -> str | None:
    """Say when pseudo-labels have become worse, as in training that confirms its own mistakes.

    Precision falls in good training too, as more pixels are kept than the few easiest ones; so it is compared
    with evaluations that kept at least `COVERAGE_SHARE` as many.

    Args:
        precisions: Precision at each evaluation so far, the latest last; NaN where nothing was kept.
        coverages: Coverage at the same evaluations.

    Returns:
        A sentence for the log, or None.
    """
    comparable = (
        precision
        for precision, coverage in zip(precisions, coverages, strict=True)
        if coverage >= COVERAGE_SHARE * coverages[-1] and not math.isnan(precision)
    )
    best = max(comparable, default=0.0)
    if precisions and precisions[-1] < PRECISION_SHARE * best:
        return (
            f"Pseudo-labels may be collapsing: {100 * precisions[-1]:.0f} % of the kept pixels are right, "
            f"after {100 * best:.0f} % earlier. Raise the threshold or lower the learning rate."
        )
    if coverages and coverages[-1] < COVERAGE_SHARE * max(coverages):
        return (
            f"Pseudo-labels may be collapsing: {100 * coverages[-1]:.0f} % of the pixels are kept, "
            f"after {100 * max(coverages):.0f} % earlier. Lower the threshold or the learning rate."
        )
    return None
