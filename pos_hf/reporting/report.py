"""One self-contained HTML page about one or several runs: what it shows, and nothing it cannot show. Drawing
is in `figures`, arithmetic in `intervals`, the page's markup and style in templates/report.html.j2."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pos_hf.errors import InputError
from pos_hf.reporting.figures import (
    RUN_COLOURS,
    cosine,
    curves,
    landscape_contours,
    landscape_lines,
    norm_distributions,
    unsupervised_share,
)
from pos_hf.reporting.history import Run, read_runs
from pos_hf.reporting.intervals import (
    Interval,
    class_iou_intervals,
    mean_iou,
    mean_iou_interval,
    paired_difference,
)
from pos_hf.reporting.pictures import IGNORED, overlay, picture_colours

SIGNATURE = '<meta name="generator" content="pos-hf report">'
EXAMPLES = 6
PICTURE_SIDE = 360
"""Longest side of an embedded picture in pixels."""
FIRST_RIGHT, SECOND_RIGHT, BOTH_WRONG = (0x2F, 0x6F, 0xAB), (0xC8, 0x61, 0x1A), (0x55, 0x58, 0x5E)
PRIVATE_SETTINGS = ("token", "_dir", "path", "run_name", "hub_")


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Example:
    """One test image: pictures in order, each with its title, as data URIs."""

    name: str
    pictures: list[tuple[str, str]]


def write_report(folders: list[Path], out: Path) -> None:
    """Write the page for one run, or for two to six compared ones; the first is the baseline.

    Args:
        folders: Output folders of training runs.
        out: The HTML file; an earlier report there is replaced, any other file is kept.

    Raises:
        InputError: A folder is no run, there are too many, or `out` is another kind of file.
    """
    if len(folders) > len(RUN_COLOURS):
        raise InputError(f"{len(folders)} runs are too many for one page: give at most {len(RUN_COLOURS)}.")
    if out.exists() and SIGNATURE not in out.read_text(errors="ignore")[:1000]:
        raise InputError(f"'{out}' exists and is no earlier report: give another file to --out.")
    runs = read_runs(folders)
    environment = Environment(
        loader=PackageLoader("pos_hf.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points}
    page = environment.get_template("report.html.j2").render(
        signature=Markup(SIGNATURE),
        runs=[_summary(run) for run in runs],
        differences=_differences(runs),
        curves=training_figures(runs),
        conflict=conflict_figures(runs),
        landscape=landscape_figures(runs),
        sharpness=[{"name": run.name, **run.landscape[-1]} if run.landscape else None for run in runs],
        classes=_class_table(runs),
        examples=_examples(runs),
        legend=_legend(runs),
        worst=_worst_images(runs),
        differing=_differing_settings(runs),
    )
    out.write_text(page)


def training_figures(runs: Sequence[Run]) -> list[Figure]:
    """The curves that at least one run logged."""
    candidates = [
        ("Supervised loss", curves(runs, "supervised_loss"), "On labeled images."),
        (
            "Unsupervised loss",
            curves(runs, "unsupervised_loss"),
            "Against pseudo-labels on unlabeled images.",
        ),
        (
            "mIoU during training",
            curves(runs, "eval_mean_iou", "eval_student_mean_iou"),
            "Solid: the exported model (the teacher where there is one); dashed: the student beside it.",
        ),
        (
            "Kept pixels",
            curves(runs, "kept_share", unit_interval=True),
            "Share of unlabeled pixels whose pseudo-label is confident enough to count.",
        ),
        (
            "Pseudo-labels on held-out labels",
            curves(runs, "eval_pseudo_label_precision", "eval_pseudo_label_coverage", unit_interval=True),
            "Solid: share of the kept pixels that are right; dashed: share of the pixels that are kept.",
        ),
        (
            "Gradient norms",
            curves(runs, "supervised_norm", "unsupervised_norm", logarithmic=True),
            "Solid: supervised; dashed: unsupervised. Logarithmic.",
        ),
        (
            "Weights of the update",
            curves(runs, "supervised_weight", "unsupervised_weight"),
            "Solid: supervised; dashed: unsupervised. Any gain of MEO is contained.",
        ),
        (
            "MEO gain",
            curves(runs, "meo_gain", logarithmic=True, reference=1.0),
            "By how much MEO lengthens the update; 1 changes nothing. Logarithmic.",
        ),
    ]
    return [Figure(title, svg, caption) for title, svg, caption in candidates if svg]


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
            figures.append(Figure(f"Fig. 1a · conflict · {run.name}", between, caption))
        integrated = cosine(run, colour, "min_cosine")
        if integrated:
            caption = (
                "The smaller cosine of the integrated gradient with either of the two; lowest logged value "
                f"{run.series('min_cosine')[1].min():.2f}."
            )
            figures.append(Figure(f"Fig. 1b/c · after integration · {run.name}", integrated, caption))
    for run, colour in zip(runs, RUN_COLOURS, strict=False):
        norms = norm_distributions(run, colour)
        if norms:
            caption = f"Filled: supervised; dashed: unsupervised. {_variance_ratio(run)}"
            figures.append(Figure(f"Fig. 3a · norm distributions · {run.name}", norms, caption))
    share_svg = unsupervised_share(runs)
    if share_svg:
        caption = "Unsupervised weight divided by the sum of both; for POS this is αᵘ."
        figures.append(Figure("Fig. 3b · unsupervised weight", share_svg, caption))
    return figures


def landscape_figures(runs: Sequence[Run]) -> list[Figure]:
    """The paper's Fig. 5 for the runs whose landscape was measured."""
    figures = []
    for key, title in (("loss", "training loss"), ("mean_iou", "test mIoU")):
        svg = landscape_lines(runs, key)
        if svg:
            caption = "One random direction, the same for all runs, on the scale of each run's filters."
            figures.append(Figure(f"Fig. 5 · {title}", svg, caption))
        for run, colour in zip(runs, RUN_COLOURS, strict=False):
            contours = landscape_contours(run, colour, key)
            if contours:
                caption = "Two filter-normalised directions; + is the trained model."
                figures.append(Figure(f"Fig. 5 · {title} · {run.name}", contours, caption))
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
        "student": students[-1] if len(students) else None,
        "oracle": history.max() if len(history) > 1 else None,
        "steps": max((entry["step"] for entry in run.log), default=0),
    }


def _differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run against the first; an interval only where both saw the same images."""
    first, rows = runs[0], []
    for run in runs[1:]:
        if first.image_areas is not None and run.image_areas is not None and first.image_ids == run.image_ids:
            interval: Interval | None = paired_difference(run.image_areas, first.image_areas)
        else:
            interval = None
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


def _worst_images(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The five images of lowest own mIoU under the last run, with every run's value."""
    last = runs[-1]
    if last.image_areas is None:
        return []
    values = [
        dict(zip(run.image_ids, mean_iou(run.image_areas), strict=True))
        if run.image_areas is not None
        else {}
        for run in runs
    ]
    own = values[-1]
    worst = sorted((image for image in own if not np.isnan(own[image])), key=lambda image: own[image])
    return [{"name": image, "cells": [column.get(image) for column in values]} for image in worst[:5]]


def _examples(runs: Sequence[Run]) -> list[Example]:
    shared = [name for name in runs[0].examples if all(name in run.examples for run in runs)]
    return [_example(name, runs) for name in shared[:EXAMPLES]]


def _example(name: str, runs: Sequence[Run]) -> Example:
    first = runs[0].examples[name]
    image = Image.open(first / "image.jpg").convert("RGB")
    truth = Image.open(first / "truth.png")
    predictions = [Image.open(run.examples[name] / "prediction.png") for run in runs]
    pictures = [("image", image), ("ground truth", _overlay(image, truth))]
    pictures += [(run.name, _overlay(image, mask)) for run, mask in zip(runs, predictions, strict=True)]
    if len(runs) == 2:
        pictures.append(
            ("who is right", _who_is_right(image, *(np.asarray(mask) for mask in (truth, *predictions))))
        )
    return Example(name, [(title, _data_uri(picture)) for title, picture in pictures])


def _overlay(image: Image.Image, mask: Image.Image) -> Image.Image:
    return overlay(image, np.asarray(mask), picture_colours(mask))


def _who_is_right(
    image: Image.Image, truth: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Image.Image:
    """A pale image with each pixel where the two differ in the colour of the run that is right."""
    canvas = np.asarray(image.convert("L").convert("RGB")) // 3 + 165
    differ = (first != second) & (truth != IGNORED)
    canvas[differ] = BOTH_WRONG
    canvas[differ & (first == truth)] = FIRST_RIGHT
    canvas[differ & (second == truth)] = SECOND_RIGHT
    return Image.fromarray(canvas.astype(np.uint8))


def _legend(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Class name and CSS colour, read from the palette of the example pictures."""
    names = list(runs[0].class_iou)
    for folder in runs[0].examples.values():
        colours = picture_colours(Image.open(folder / "truth.png"))
        return [(name, "#{:02x}{:02x}{:02x}".format(*colours[i])) for i, name in enumerate(names)]
    return []


def _data_uri(picture: Image.Image) -> str:
    scale = PICTURE_SIDE / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    file = BytesIO()
    picture.resize(size, resample).save(file, "JPEG", quality=84)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


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
