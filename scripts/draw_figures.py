"""Draws docs/figures/ from the strategies themselves: `python scripts/draw_figures.py [FOLDER]`."""

import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pos_hf.balancing import Gramian, pos, uniform
from pos_hf.reporting.figures import ON_ANY_GROUND

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
PAPER, PLAIN, BOUNDED = pos(min_weight=0), pos(min_weight=0, meo=False), pos()
BLUE, ORANGE, GREY, GREEN, PURPLE = "#2563c9", "#d9730d", "#8a8f98", "#178a5b", "#a855c7"
# title: norm of g_u (g_s has norm 1) and the angle between them in degrees
SITUATIONS = {
    "conflict": (0.5, 125),
    "orthogonal: the norms swap": (0.4, 90),
    "small and aligned: blown up": (0.15, 55),
}


def gramian(g_s: np.ndarray, g_u: np.ndarray) -> Gramian:
    """The Gramian of two plane vectors, float64 [2]."""
    return Gramian(*(torch.tensor(x @ y) for x, y in ((g_s, g_s), (g_u, g_u), (g_s, g_u))))


def polar(norm: float, degrees: float) -> np.ndarray:
    """The plane vector of a length and an angle to the first axis, float64 [2]."""
    return norm * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def draw_geometry() -> Figure:
    """Both gradients, their average, the POS vector on the segment between them, and its MEO stretch."""
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    for axes, (title, (norm, angle)) in zip(figure.subplots(1, 3), SITUATIONS.items(), strict=True):
        g_s, g_u = polar(1, 0), polar(norm, angle)
        numbers = gramian(g_s, g_u)
        updates = {}
        for strategy in (uniform, PAPER, PLAIN):
            w_s, w_u = (weight.item() for weight in strategy(numbers))
            updates[strategy] = w_s * g_s + w_u * g_u
        axes.plot(*np.stack([g_s, g_u]).T, color=GREY, lw=0.8, ls=":")
        radius = np.linalg.norm(updates[uniform])
        axes.plot(*np.stack([polar(radius, t) for t in range(181)]).T, color=GREY, lw=0.6, ls="--")
        for vector, color, name in (
            (g_s, BLUE, "$g_s$"),
            (g_u, ORANGE, "$g_u$"),
            (updates[uniform], GREY, "average"),
            (updates[PAPER], GREEN, "POS+MEO"),
            (updates[PLAIN], PURPLE, "POS"),
        ):
            arrow(axes, vector, color, name)
        axes.set(title=title, aspect="equal", xlim=(-0.6, 1.15), ylim=(-0.12, 0.72))
        axes.title.set_fontsize(10)
        axes.axis("off")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def arrow(axes: Axes, vector: np.ndarray, color: str, name: str) -> None:
    """An arrow from the origin, with its entry in the legend."""
    style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
    style["lw"] = 3 if color == ORANGE else 1.5  # POS may lie on g_u
    axes.annotate("", vector, (0, 0), arrowprops=style)
    axes.plot([], [], color=color, label=name)


def draw_weights() -> Figure:
    """MEO's gain and the share of g_u in the update over the norm of g_u, as in the paper and bounded."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    ratios = np.logspace(-2, 0.5, 400)
    left, right = figure.subplots(1, 2, sharex=True)
    for angle, color in ((60, BLUE), (90, GREY), (120, ORANGE)):
        for strategy, style in ((PAPER, "-"), (BOUNDED, "--")):
            w_s, w_u = weights(strategy, (gramian(polar(1, 0), polar(ratio, angle)) for ratio in ratios))
            name = f"{angle}°" + ("" if strategy is PAPER else ", bounded (default)")
            left.plot(ratios, w_s + w_u, style, color=color, lw=1.2, label=name)
            right.plot(ratios, w_u * ratios / (w_s + w_u * ratios), style, color=color, lw=1.2)
    left.set(xscale="log", yscale="log", ylabel="$w_s + w_u$ (MEO's gain)")
    right.set(ylabel="share of $g_u$ in the update")
    for axes in (left, right):
        axes.set_xlabel("norm of $g_u$ / norm of $g_s$")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return figure


def weights(strategy: object, gramians: Iterable[Gramian]) -> np.ndarray:
    """The strategy's two weights for each Gramian, float64 [2, N]."""
    return np.array([[weight.item() for weight in strategy(numbers)] for numbers in gramians]).T


def main(folder: Path) -> None:
    """Write the figures; the same bytes for the same matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(ON_ANY_GROUND | {"svg.fonttype": "none", "svg.hashsalt": "pos_hf"}):
        for name, figure in {"geometry": draw_geometry(), "weights": draw_weights()}.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
