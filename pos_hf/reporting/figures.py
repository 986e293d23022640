"""The report's figures as SVG: curves, and the paper's Fig. 1 and Fig. 3 from a run's log. Which figures a
report shows is decided in `report`.

Every colour is a CSS variable of the page, so that one picture serves light and dark. Solid lines are the
supervised side, dashed ones the unsupervised side; a run keeps its colour everywhere.
"""

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pos_hf.run_folder import Run

RUN_COLOURS = ["#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06"]
"""Placeholders in drawing order; `_to_svg` turns them into the page's variables --run-1 ... --run-6."""
INK, MUTED, GRID = "#0a0b11", "#0a0b12", "#0a0b13"
VARIABLES = {colour: f"var(--run-{i})" for i, colour in enumerate(RUN_COLOURS, 1)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
}
SIZE_INCHES = (4.4, 2.7)
MAX_POINTS = 800
LINEAR_UP_TO = 5
"""Ratio of the largest to the smallest value."""
MAX_CLASSES, MAX_COLUMNS = 16, 24
"""Of a heatmap."""
NAMES_AS_THEY_ARE: dict[Any, Any] = {"text.parse_math": False}
"""For every figure: a class or an arm may be called $x, which is no formula."""
NEUTRAL = "#777b84"  # can be read on white and on black
ON_ANY_GROUND: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), NEUTRAL
    ),
}
"""For a figure that is shown on pages of both colour schemes."""
STYLE: dict[Any, Any] = NAMES_AS_THEY_ARE | {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.constrained_layout.use": True,
}


def curves(
    runs: Sequence[Run],
    solid: str,
    dashed: str | None = None,
    *,
    logarithmic: bool = False,
    unit_interval: bool = False,
    reference: float | None = None,
    factor: float = 1.0,
) -> str | None:
    """One logged quantity, or a solid and a dashed one, over training steps for every run.

    Args:
        runs: In the order of their colours.
        solid: Logged key.
        dashed: A second key, drawn dashed.
        logarithmic: Use a logarithmic value axis.
        unit_interval: Fix the value axis to 0 ... 1.
        reference: A value marked by a thin line.
        factor: What values are multiplied by, 100 for percent.

    Returns:
        SVG, or None when no run logged either key.
    """

    def draw(axes: Axes) -> bool:
        series = [
            (*run.series(key), colour, style)
            for run, colour in zip(runs, RUN_COLOURS, strict=False)
            for key, style in ((solid, "-"), (dashed, "--"))
            if key
        ]
        drawn = [
            _line(axes, (steps, factor * values), colour, style) for steps, values, colour, style in series
        ]
        values = np.concatenate([values for _, values, _, _ in series])
        values = values[values > 0]
        # of less than a decade few ticks, or none, would be 1, 2 or 5
        if logarithmic and len(values) and values.max() > LINEAR_UP_TO * values.min():
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        if unit_interval:
            axes.set_ylim(-0.02, 1.02)
        if reference is not None:
            axes.axhline(reference, color=MUTED, linewidth=0.8)
        axes.set_xlim(left=0)
        axes.set_xlabel("step")
        return any(drawn)

    return _to_svg(draw, f"{solid}-{dashed}")


def cosine(run: Run, colour: str, key: str) -> str | None:
    """Paper Fig. 1: a cosine over training steps, the part below zero (conflict) filled.

    Args:
        run: The run.
        colour: Its colour.
        key: "cosine" for g_s and g_u (a), "min_cosine" for the smaller cosine of the integrated gradient with
            either (b, c).

    Returns:
        SVG, or None when the run logged no such value.
    """

    def draw(axes: Axes) -> bool:
        steps, values = _thinned(run.series(key))
        axes.plot(steps, values, color=colour, linewidth=1.1)
        axes.fill_between(steps, np.minimum(values, 0), 0, color=colour, alpha=0.25, linewidth=0)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(-1.02, 1.02)
        axes.set_xlim(left=0)
        axes.set_xlabel("step")
        return len(steps) > 0

    return _to_svg(draw, f"{key}-{run.name}")


def norm_distributions(run: Run, colour: str) -> str | None:
    """Paper Fig. 3 (a): how often each gradient norm was logged; filled = supervised, dashed = unsupervised.

    Returns:
        SVG, or None when the run has no two gradients.
    """

    def draw(axes: Axes) -> bool:
        norms = [run.series(key)[1] for key in ("supervised_norm", "unsupervised_norm")]
        positive = [values[values > 0] for values in norms]
        if not all(len(values) for values in positive):
            return False
        together = np.log10(np.concatenate(positive))
        bins = np.logspace(together.min(), together.max() + 1e-9, 31).tolist()
        axes.hist(positive[0], bins, color=colour, alpha=0.4)
        axes.hist(positive[1], bins, color=colour, histtype="step", linestyle="--", linewidth=1.5)
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.set_xlabel("gradient norm")
        axes.set_ylabel("logged steps")
        return True

    return _to_svg(draw, f"norms-{run.name}")


def unsupervised_share(runs: Sequence[Run]) -> str | None:
    """Paper Fig. 3 (b): the unsupervised weight's share of both weights, which for POS is alpha^u whatever
    MEO's gain.

    Returns:
        SVG, or None when no run logged both weights.
    """

    def draw(axes: Axes) -> bool:
        drawn = []
        for run, colour in zip(runs, RUN_COLOURS, strict=False):
            steps, unsupervised = run.series("unsupervised_weight")
            supervised = run.series("supervised_weight")[1]
            if len(unsupervised) == len(supervised):
                total = np.where(unsupervised + supervised == 0, np.nan, unsupervised + supervised)
                drawn.append(_line(axes, (steps, unsupervised / total), colour, "-"))
        axes.axhline(0.5, color=MUTED, linewidth=0.8)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(left=0)
        axes.set_xlabel("step")
        return any(drawn)

    return _to_svg(draw, "share")


def class_heatmap(run: Run, colour: str, prefix: str) -> str | None:
    """A share of each class at each evaluation, the darker the larger, with the last values as numbers.

    Args:
        run: The run.
        colour: Its colour.
        prefix: Logged keys are this and the class's name; of many classes those with the lowest last value
            are drawn.

    Returns:
        SVG, or None when the run logged no such value.
    """
    names = dict.fromkeys(
        key.removeprefix(prefix) for entry in run.log for key in entry if key.startswith(prefix)
    )
    series = {name: run.series(prefix + name) for name in names}
    series = {name: points for name, points in series.items() if len(points[0])}
    steps = np.unique([step for points in series.values() for step in points[0]])
    lowest = sorted(series, key=lambda name: series[name][1][-1])[:MAX_CLASSES]
    shown = [name for name in series if name in lowest]

    def draw(axes: Axes) -> bool:
        if not shown:
            return False
        values = np.full((len(shown), len(steps)), np.nan)
        for i, name in enumerate(shown):
            values[i, np.searchsorted(steps, series[name][0])] = series[name][1]
        columns = np.unique(np.linspace(0, len(steps) - 1, MAX_COLUMNS).round().astype(int))
        fades = LinearSegmentedColormap.from_list("fades", [(*to_rgb(colour), 0), (*to_rgb(colour), 0.55)])
        axes.pcolormesh(values[:, columns], cmap=fades, vmin=0, vmax=1)
        axes.invert_yaxis()
        for i, value in enumerate(values[:, -1]):
            if np.isfinite(value):
                axes.text(len(columns) - 0.12, i + 0.5, f"{100 * value:.0f}", ha="right", va="center")
        axes.set_yticks(np.arange(len(shown)) + 0.5, shown)
        ticks = np.unique(np.linspace(0, len(columns) - 1, 4).round().astype(int))
        axes.set_xticks(ticks + 0.5, [f"{steps[columns[i]]:.0f}" for i in ticks])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel("step")
        return True

    return _to_svg(draw, f"{prefix}-{run.name}")


def landscape_lines(runs: Sequence[Run], key: str) -> str | None:
    """Paper Fig. 5 along one direction for every run that measured it.

    Args:
        runs: In the order of their colours.
        key: "loss" or "mean_iou".

    Returns:
        SVG, or None when no run measured one dimension.
    """

    def draw(axes: Axes) -> bool:
        drawn = False
        for run, colour in zip(runs, RUN_COLOURS, strict=False):
            if run.landscape and run.landscape[0]["dimensions"] == 1:
                points = run.landscape[1:-1]
                steps, values = [point["position"][0] for point in points], [point[key] for point in points]
                axes.plot(steps, values, color=colour)
                drawn = True
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("step along the direction")
        return drawn

    return _to_svg(draw, f"landscape-{key}")


def landscape_contours(run: Run, colour: str, key: str) -> str | None:
    """Paper Fig. 5 over two directions.

    Args:
        run: The run.
        colour: Its colour.
        key: "loss" or "mean_iou".

    Returns:
        SVG, or None when the run did not measure two dimensions.
    """

    def draw(axes: Axes) -> bool:
        if not run.landscape or run.landscape[0]["dimensions"] != 2:
            return False
        side, points = run.landscape[0]["points"], run.landscape[1:-1]
        values = np.array([point[key] for point in points]).reshape(side, side)
        steps = [point["position"][1] for point in points[:side]]
        lines = axes.contour(steps, steps, values, levels=12, colors=colour, linewidths=0.9)
        axes.clabel(lines, fontsize=7, colors=MUTED)
        axes.plot(0, 0, marker="+", color=INK)
        return True

    return _to_svg(draw, f"landscape-{key}-{run.name}")


def plain_numbers(axis: Axis) -> None:
    """0.1, 0.2, 0.5, 1 ... on a logarithmic axis, where matplotlib writes powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, points: tuple[np.ndarray, np.ndarray], colour: str, style: str) -> bool:
    """Draw the values, long noisy series faint under their running mean; False when there are none."""
    steps, values = _thinned(points)
    noisy = len(steps) > 60
    axes.plot(
        steps,
        values,
        color=colour,
        linestyle="-" if noisy else style,
        alpha=0.22 if noisy else 1,
        linewidth=0.8 if noisy else 1.6,
        marker="o" if len(steps) < 12 else "",
        markersize=3,
    )
    if noisy:
        width = len(steps) // 20
        mean = np.convolve(values, np.full(width, 1 / width), mode="valid")
        axes.plot(steps[width // 2 :][: len(mean)], mean, color=colour, linestyle=style)
    return len(steps) > 0


def _thinned(points: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    steps, values = points
    every = -(-len(steps) // MAX_POINTS) or 1
    return steps[::every], values[::every]


def _to_svg(draw: Callable[[Axes], bool], salt: str) -> str | None:
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt}):  # ids differ between the figures of a page
        figure = Figure(figsize=SIZE_INCHES)
        if not draw(figure.subplots()):
            return None
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r'(<svg)(?: (?:width|height)="[^"]*")+', r"\1", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
