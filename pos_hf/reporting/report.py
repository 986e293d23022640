"""One self-contained HTML page about one or several runs: what it shows, and nothing it cannot show. Drawing
is in `figures`, pictures in `gallery`, arithmetic in `intervals`, markup and style in
templates/report.html.j2."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pos_hf.errors import InputError
from pos_hf.files import write_text
from pos_hf.reporting.answers import answers
from pos_hf.reporting.figures import (
    RUN_COLOURS,
    class_heatmap,
    cosine,
    curves,
    landscape_contours,
    landscape_lines,
    norm_distributions,
    unsupervised_share,
)
from pos_hf.reporting.gallery import examples, legend, pseudo_label_strip, worst
from pos_hf.reporting.intervals import (
    Interval,
    class_iou_intervals,
    mean_iou_interval,
    paired_difference,
)
from pos_hf.run_folder import Run, read_runs
from pos_hf.templates import load_template

SIGNATURE = '<meta name="generator" content="pos-hf report">'
PRIVATE_SETTINGS = ("token", "_dir", "path", "run_name", "hub_")


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    title: str
    svg: str
    caption: str
    paper: str = ""
    """The paper's figure that it repeats."""


def write_report(folders: list[Path], out: Path) -> None:
    """Write the page for one run, or for two to six compared ones; the first is the baseline.

    Args:
        folders: Output folders of training runs.
        out: The HTML file; an earlier report there is replaced, any other file is kept.

    Raises:
        InputError: A folder is no run or holds a damaged file, there are too many, or `out` is another kind
            of file.
        TrainingStopped: The page cannot be written; what was there before is as it was.
    """
    if len(folders) > len(RUN_COLOURS):
        raise InputError(f"{len(folders)} runs are too many for one page: give at most {len(RUN_COLOURS)}.")
    keep_other_files(out)
    runs = read_runs(folders)
    template = load_template("pos_hf.reporting", "report.html.j2", percent=_percent, points=_points)
    page = template.render(
        signature=Markup(SIGNATURE),
        answers=answers(runs),
        runs=[_summary(run) for run in runs],
        differences=_differences(runs),
        curves=training_figures(runs),
        conflict=conflict_figures(runs),
        landscape=landscape_figures(runs),
        sharpness=[{"name": run.name, **run.landscape[-1]} if run.landscape else None for run in runs],
        classes=_class_table(runs),
        examples=examples(runs),
        legend=legend(runs),
        worst=worst(runs),
        pseudo_labels=pseudo_label_figures(runs),
        alarms=[run.alarms for run in runs],
        strips=[pseudo_label_strip(run) for run in runs],
        differing=_differing_settings(runs),
    )
    write_text(out, page)


def keep_other_files(out: Path) -> None:
    """Make sure that a page replaces nothing but an earlier page, or what a full disk left of one.

    Raises:
        InputError: something else is there.
    """
    if out.is_dir():
        raise InputError(f"'{out}' is a folder: give a file to --out.")
    if not out.exists():
        return
    begin = out.read_bytes()[:1000].decode(errors="replace")
    page = files("pos_hf.reporting").joinpath("templates/report.html.j2").read_text()
    if SIGNATURE not in begin and not page.replace("{{ signature }}", SIGNATURE).startswith(begin):
        raise InputError(f"'{out}' exists and is no earlier report: give another file to --out.")


def training_figures(runs: Sequence[Run]) -> list[Figure]:
    """The curves that at least one run logged."""
    evaluated = {run.evaluated_images for run in runs if len(run.series("eval_mean_iou")[1])}
    candidates = [
        ("Supervised loss", curves(runs, "supervised_loss"), "On labeled images."),
        (
            "Unsupervised loss",
            curves(runs, "unsupervised_loss"),
            "Against pseudo-labels on unlabeled images.",
        ),
        (
            "mIoU during training, in %",
            curves(runs, "eval_mean_iou", "eval_student_mean_iou", factor=100),
            f"Of the {' and '.join(sorted(evaluated))}. Solid: the exported model (the teacher where there "
            "is one); dashed: the student beside it.",
        ),
        (
            "Gradient norms",
            curves(runs, "supervised_norm", "unsupervised_norm", logarithmic=True),
            "Solid: supervised; dashed: unsupervised.",
        ),
        (
            "Weights of the update",
            curves(runs, "supervised_weight", "unsupervised_weight"),
            "Solid: supervised; dashed: unsupervised. Any gain of MEO is contained.",
        ),
        (
            "MEO gain",
            curves(runs, "meo_gain", logarithmic=True, reference=1.0),
            "By how much MEO lengthens the update; 1 changes nothing.",
        ),
    ]
    return [Figure(title, svg, caption) for title, svg, caption in candidates if svg]


def pseudo_label_figures(runs: Sequence[Run]) -> list[Figure]:
    """How many pseudo-labels count in training, and how good they are on held-out labels, also by class."""
    figures = []
    kept = curves(runs, "kept_share", unit_interval=True)
    if kept:
        caption = "Share of unlabeled pixels whose pseudo-label is confident enough to count."
        figures.append(Figure("Kept pixels", kept, caption))
    quality = curves(runs, "eval_pseudo_label_precision", "eval_pseudo_label_coverage", unit_interval=True)
    if quality:
        caption = "Solid: share of the kept pixels that are right; dashed: share of the pixels that are kept."
        figures.append(Figure("Pseudo-labels on held-out labels", quality, caption))
    for run, colour in zip(runs, RUN_COLOURS, strict=False):
        for key, caption in (
            ("precision", "Of the pixels kept as a class, the share in % that is it, at each evaluation."),
            ("coverage", "Of the pixels of a class, the share in % that is kept as anything."),
        ):
            svg = class_heatmap(run, colour, f"eval_pseudo_label_{key}_")
            if svg:
                figures.append(Figure(f"{key.capitalize()} by class · {run.name}", svg, caption))
    return figures


def conflict_figures(runs: Sequence[Run]) -> list[Figure]:
    """The paper's Fig. 1 and Fig. 3, drawn from each run's log."""
    figures = []
    for run, colour in zip(runs, RUN_COLOURS, strict=False):
        between = cosine(run, colour, "cosine")
        if between:
            share = run.series("cosine")[1] < 0
            caption = (
                f"Cosine of the two gradients; below zero in {_percent(share.mean())} % of the logged values."
            )
            figures.append(Figure(f"Do the gradients conflict? · {run.name}", between, caption, "Fig. 1a"))
        integrated = cosine(run, colour, "min_cosine")
        if integrated:
            caption = (
                "The smaller cosine of the integrated gradient with either of the two; lowest logged value "
                f"{run.series('min_cosine')[1].min():.2f}."
            )
            figures.append(
                Figure(f"Does the update point against one? · {run.name}", integrated, caption, "Fig. 1b/c")
            )
    for run, colour in zip(runs, RUN_COLOURS, strict=False):
        norms = norm_distributions(run, colour)
        if norms:
            caption = f"Filled: supervised; dashed: unsupervised. {_variance_ratio(run)}"
            figures.append(Figure(f"How long the gradients are · {run.name}", norms, caption, "Fig. 3a"))
    share_svg = unsupervised_share(runs)
    if share_svg:
        caption = "Unsupervised weight divided by the sum of both; for POS this is αᵘ."
        figures.append(Figure("Share of the unsupervised weight", share_svg, caption, "Fig. 3b"))
    return figures


def landscape_figures(runs: Sequence[Run]) -> list[Figure]:
    """The paper's Fig. 5 for the runs whose landscape was measured."""
    figures = []
    for key, title in (("loss", "Training loss"), ("mean_iou", "mIoU")):
        svg = landscape_lines(runs, key)
        if svg:
            caption = "One random direction, the same for all runs, on the scale of each run's filters."
            figures.append(Figure(f"{title} along a line", svg, caption, "Fig. 5"))
        for run, colour in zip(runs, RUN_COLOURS, strict=False):
            contours = landscape_contours(run, colour, key)
            if contours:
                caption = "Two filter-normalised directions; + is the trained model."
                figures.append(Figure(f"{title} on a plane · {run.name}", contours, caption, "Fig. 5"))
    return figures


def _variance_ratio(run: Run) -> str:
    supervised, unsupervised = (
        run.series(f"{side}_norm_variance")[1] for side in ("supervised", "unsupervised")
    )
    if not len(supervised) or not np.median(unsupervised):
        return ""
    ratio = np.median(supervised) / np.median(unsupervised)
    return f"The supervised norm's variance is {ratio:.3g} times the unsupervised one's (medians of the log)."


def _summary(run: Run) -> dict[str, Any]:
    """What the card of a run shows; the headline is the last exported model, never the best on test."""
    history = run.series("eval_mean_iou")[1]
    students = run.series("eval_student_mean_iou")[1]
    value = run.metrics.get("mean_iou", history[-1] if len(history) else None)
    return {
        "name": run.name,
        "mean_iou": mean_iou_interval(run.image_areas) if run.image_areas is not None else None,
        "value": value,
        "images": run.metrics.get("images"),
        "role": run.scored_role,
        "student": students[-1] if len(students) else None,
        "oracle": history.max() if len(history) > 1 else None,
        "evaluated": run.evaluated_images,
        "steps": max((entry["step"] for entry in run.log), default=0),
    }


def _differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run against the first; an interval only where both were scored alike."""
    first, rows = runs[0], []
    for run in runs[1:]:
        counts = run.paired_counts(first)
        interval = paired_difference(*counts) if counts else None
        rows.append({"name": run.name, "baseline": first.name, "interval": interval})
    return rows


def _class_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row a class of the first run with scores: its interval under each run, NaN where it is unknown."""
    names = next((list(run.class_iou) for run in runs if run.class_iou), [])
    columns = []
    for run in runs:
        if run.image_areas is not None and list(run.class_iou) == names:
            columns.append(class_iou_intervals(run.image_areas))
        else:
            columns.append([Interval(run.class_iou.get(name, np.nan), np.nan, np.nan) for name in names])
    return [{"name": name, "cells": [column[i] for column in columns]} for i, name in enumerate(names)]


def _differing_settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Settings in which the runs differ; of a single run all of them. Nothing private."""
    keys = [key for key in dict.fromkeys(key for run in runs for key in run.settings)]
    public = [key for key in keys if not any(word in key for word in PRIVATE_SETTINGS)]
    rows = [
        {"name": key, "cells": [_without_folders(run.settings.get(key)) for run in runs]} for key in public
    ]
    return rows if len(runs) == 1 else [row for row in rows if len(set(map(str, row["cells"]))) > 1]


def _without_folders(value: Any) -> Any:
    """Of an absolute path only the name: a page is passed on, the folders of a machine are not."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _percent(value: float | None) -> str:
    return "\N{EN DASH}" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
