"""Table, verdict and picture of `pos-hf conflict`. What they show is measured in runs/conflict.py."""

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pos_hf.reporting.figures import ON_ANY_GROUND, plain_numbers

COSINES = {
    "full gradients": ("cosine", "#a855c7", "o"),
    "one batch's own": ("batch_cosine", "#8a8f98", "D"),
    "two batches, supervised": ("supervised_cosine", "#2563c9", "s"),
    "two batches, unsupervised": ("unsupervised_cosine", "#d9730d", "s"),
}
LENGTHS = {
    "full, supervised": ("supervised_square", "#2563c9", "o"),
    "full, unsupervised": ("unsupervised_square", "#d9730d", "o"),
    "noise of a batch, supervised": ("supervised_trace", "#2563c9", "x"),
    "noise of a batch, unsupervised": ("unsupervised_trace", "#d9730d", "x"),
}

ROWS = {
    "norm(s)^2, supervised": "supervised_square",
    "norm(u)^2, unsupervised": "unsupervised_square",
    "<s, u>": "product",
    "trace(C_s), noise of a batch": "supervised_trace",
    "trace(C_u), noise of a batch": "unsupervised_trace",
    "norm(u) / norm(s)": "norm_ratio",
    "trace(C_s) / trace(C_u)": "trace_ratio",
    "cosine of s and u": "cosine",
    "a batch's own cosine, mean": "batch_cosine",
    "share of batches in which it is negative": "negative_share",
    "cosine of two batches, supervised": "supervised_cosine",
    "cosine of two batches, unsupervised": "unsupervised_cosine",
}


def conflict_picture(moments: Mapping[str, Mapping[str, Any]]) -> str:
    """Cosines (left) and root mean squares (right) with their 95 % intervals.

    Args:
        moments: estimates by name, as in conflict.json: a number, or three of an interval, None for unknown.

    Returns:
        SVG, the same bytes for the same numbers.
    """
    with matplotlib.rc_context(ON_ANY_GROUND | {"svg.fonttype": "none", "svg.hashsalt": "conflict"}):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.axhline(0, color="#8a8f98", linewidth=0.8)
        for axes, series, scale in ((left, COSINES, np.asarray), (right, LENGTHS, _root)):
            _draw(axes, moments, series, scale)
            axes.set_xticks(range(len(moments)), [f"step {moment['step']}" for moment in moments.values()])
            axes.set_xlim(-0.5, len(moments) - 0.5)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
        left.set_title("cosine", fontsize=10)
        right.set_title("length", fontsize=10)
        right.set_yscale("log")
        plain_numbers(right.yaxis)
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw(
    axes: Any,
    moments: Mapping[str, Mapping[str, Any]],
    series: Mapping[str, tuple[str, str, str]],
    scale: Callable,
) -> None:
    for place, (label, (key, colour, marker)) in enumerate(series.items()):
        found = [moment[key] for moment in moments.values()]
        triples = [value if isinstance(value, list) else [value] * 3 for value in found]
        value, low, high = scale(np.array(triples, dtype=float)).T
        x = np.arange(len(moments)) + 0.12 * (place - (len(series) - 1) / 2)
        axes.errorbar(
            x, value, [value - low, high - value], color=colour, marker=marker, linestyle="", label=label
        )


def _root(squares: np.ndarray) -> np.ndarray:
    """Lengths [N, 3] of value, low, high; an interval that reaches 0 leaves a logarithmic axis below."""
    lengths = np.sqrt(np.maximum(squares, 0))
    lengths[lengths[:, 0] == 0, 0] = np.nan
    return lengths


def conflict_table(settings: Mapping[str, Any], moments: Mapping[str, Mapping[str, Any]]) -> str:
    """The estimates with their 95 % intervals, and a verdict for each moment.

    Args:
        settings: `batches`, `labeled_images` and `unlabeled_images` of each.
        moments: as in `conflict_picture`.

    Returns:
        Markdown.
    """
    header = ["", *moments]
    rows = [[title, *(_cell(moment[key]) for moment in moments.values())] for title, key in ROWS.items()]
    images = f"{settings['labeled_images']} labeled + {settings['unlabeled_images']} unlabeled images"
    lines = [
        f"{settings['batches']} independent batches of {images}; s and u are the full gradients, "
        "in brackets are 95 % intervals",
        "",
        *(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)),
        "",
        *(f"{name}: {_verdict(moment)}" for name, moment in moments.items()),
    ]
    return "\n".join(lines)


def _cell(value: float | list[float | None] | None) -> str:
    """A number, or one with its interval; a dash for what is not resolved."""
    if isinstance(value, list):
        middle, low, high = (_cell(part) for part in value)
        return middle if "-" in (low, high) else f"{middle} [{low}, {high}]"
    return "-" if value is None else f"{value:.3g}"


def _verdict(moment: Mapping[str, Any]) -> str:
    """What follows from the interval of <s, u>, whose sign is the cosine's, in one sentence."""
    _, low, high = moment["product"]
    unknown = moment["cosine"][0] is None
    cosine = "a norm is not told from 0" if unknown else f"their cosine is {_cell(moment['cosine'])}"
    single = f"negative in {100 * moment['negative_share']:.0f} % of the single batches"
    if moment["batch_cosine"] is None:
        return "one of the two gradients is 0 in every batch: nothing can conflict."
    if high < 0:
        return f"the objectives conflict: <s, u> is below 0 ({cosine}); {single}."
    if low > 0:
        return f"the objectives agree: <s, u> is above 0 ({cosine}); {single}, which is sampling noise."
    return f"neither conflict nor agreement is told from noise: <s, u> may be 0 ({cosine}); {single}."
