"""What a reader of a report asks first, answered from the runs' logs and scores: better, where, what next."""

from collections.abc import Sequence

import numpy as np

from pos_hf.reporting.intervals import paired_difference
from pos_hf.run_folder import Run

NAMED = 3  # classes
IMPRECISE = 0.5
"""Share of right pseudo-labels of a class below which labels of it help most."""
RARELY_KEPT = 0.02
"""Share of kept pixels, of a class or of all, below which unlabeled images teach nothing."""
ADJUSTS = "training.method_options.logit_adjustment"
"""Key of a run's settings."""
STILL_RISES = 0.01
"""mIoU between the last two evaluations."""


def answers(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Question and answer, those that the runs can answer.

    Args:
        runs: of the report, the first is the baseline.
    """
    asked = [("Is it better?", _is_better(runs)), ("Where?", _where(runs)), ("What next?", _next(runs[-1]))]
    return [(question, " ".join(said)) for question, said in asked if said]


def _is_better(runs: Sequence[Run]) -> list[str]:
    if len(runs) == 1:
        if _learns_from_unlabeled(runs[0]):
            return [
                "One run does not tell what the unlabeled images are worth: train again with --method "
                "supervised and give both runs to pos-hf report."
            ]
        return []
    said = []
    for run in runs[1:]:
        counts = run.paired_counts(runs[0])
        if counts is None:
            said.append(f"{run.name} was not scored on the images, classes and labels of {runs[0].name}.")
            continue
        value, low, high = (100 * number for number in paired_difference(*counts))
        with_without = _learns_from_unlabeled(run) and not _learns_from_unlabeled(runs[0])
        what = f"With unlabeled images, {run.name}" if with_without else run.name
        verdict = (
            "gains" if low > 0 else "loses" if high < 0 else "is not told apart from it by these images:"
        )
        said.append(
            f"{what} {verdict} {value:+.1f} points against {runs[0].name} (95 % interval {low:+.1f} to "
            f"{high:+.1f})."
        )
    return said


def _where(runs: Sequence[Run]) -> list[str]:
    """Classes that moved most against the baseline, or within one run since its first evaluation."""
    last = runs[-1]
    if len(runs) > 1 and last.paired_counts(runs[0]) is None:
        return []
    if len(runs) > 1:
        moved = {name: 100 * (iou - runs[0].class_iou[name]) for name, iou in last.class_iou.items()}
        since = f"{last.name} against {runs[0].name}"
    else:
        series = {name: last.series(f"eval_iou_{name}")[1] for name in last.class_iou}
        moved = {name: 100 * (ious[-1] - ious[0]) for name, ious in series.items() if len(ious) > 1}
        since = f"since the first evaluation, of the {last.evaluated_images}"
    moved = {name: value for name, value in moved.items() if np.isfinite(value)}
    ordered = sorted(moved, key=lambda name: -moved[name])
    up = [f"{name} {moved[name]:+.1f}" for name in ordered[:NAMED] if moved[name] > 0]
    down = [f"{name} {moved[name]:+.1f}" for name in ordered[::-1][:NAMED] if moved[name] < 0]
    said = [f"Better ({since}, in points of IoU): {', '.join(up)}."] if up else []
    return [*said, f"Worse: {', '.join(down)}."] if down else said


def _next(run: Run) -> list[str]:
    said = []
    precision, coverage = (
        _last_by_class(run, f"eval_pseudo_label_{key}_") for key in ("precision", "coverage")
    )
    never = [name for name, share in coverage.items() if share < RARELY_KEPT]
    wrong = sorted(
        (name for name, share in precision.items() if share < IMPRECISE and name not in never),
        key=lambda name: precision[name],
    )
    if wrong:
        shares = ", ".join(f"{name} ({100 * precision[name]:.0f} % right)" for name in wrong[:NAMED])
        said.append(f"Label more images of the classes whose pseudo-labels are mostly wrong: {shares}.")
    if never:
        adjust = "" if run.settings.get(ADJUSTS) else ", or set logit_adjustment"
        said.append(
            f"Hardly a pixel of {', '.join(never[:NAMED])} is confident enough to be learned from: label "
            f"more of it, lower the threshold (method_options){adjust}."
        )
    kept = run.series("kept_share")[1]
    if len(kept) and kept[-1] < RARELY_KEPT:
        said.append(
            f"At the end {100 * kept[-1]:.1f} % of the unlabeled pixels counted: lower the threshold "
            "(method_options), or train longer."
        )
    scores = run.series("eval_mean_iou")[1]
    if len(scores) > 1 and scores[-1] - scores[-2] > STILL_RISES:
        rise = 100 * (scores[-1] - scores[-2])
        said.append(f"Train longer: mIoU rose by {rise:.1f} points between the last two evaluations.")
    return said


def _last_by_class(run: Run, prefix: str) -> dict[str, float]:
    series = {name: run.series(prefix + name)[1] for name in run.class_iou}
    return {name: float(values[-1]) for name, values in series.items() if len(values)}


def _learns_from_unlabeled(run: Run) -> bool:
    return bool(len(run.series("unsupervised_loss")[1]))
