"""A study's table as Markdown, CSV, LaTeX and HTML, with a picture of every seed's score."""

import csv
import re
from collections.abc import Callable
from io import StringIO

import matplotlib
from matplotlib.figure import Figure

from pos_hf.evaluation import Inference
from pos_hf.files import written_aside
from pos_hf.reporting.figures import NAMES_AS_THEY_ARE, ON_ANY_GROUND
from pos_hf.reporting.intervals import Interval
from pos_hf.studies.plan import Study
from pos_hf.studies.scores import Cell, read_study_scores, study_cells
from pos_hf.templates import load_template
from pos_hf.text import csv_cell, markdown, one_line

CAPTION = (
    "{Role} mIoU in percent, mean ± standard deviation over {seeds} seeds; differences to {baseline} are "
    "paired by seed, with 95 % intervals (Student's t over seeds; over {role} images where there is one "
    "seed). {Role} images are predicted {protocol}."
)
PICTURE_FILE = "table.svg"
BASELINE_COLOUR, ARM_COLOUR = "#8a8f98", "#2f6fab"

LATEX = {character: rf"\{character}" for character in "%_&#${}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}

Rows = list[list[str]]


def write_tables(study: Study) -> str:
    """Write table.md, .csv, .tex, .html and .svg into the study's folder from the runs that are done.

    Args:
        study: its runs.

    Returns:
        The Markdown table, and below it which runs are left out because their files are damaged.

    Raises:
        TrainingStopped: the files cannot be written; earlier ones are as they were.
    """
    scores, left_out = read_study_scores(study)
    cells = study_cells(study, scores)
    header, rows = table_rows(study, cells)
    role = " and ".join(sorted({score.role for score in scores.values()})) or "test"
    words = {"role": role, "Role": role.capitalize(), "protocol": _protocol(study)}
    caption = CAPTION.format(seeds=study.num_seeds, baseline=study.baseline, **words)
    picture = _drawn(_draw_budget if study.budget else _draw_panels, study, cells)
    notes = "".join(f"\n{markdown(sentence)}\n" for sentence in left_out)
    text = f"**{markdown(study.title)}**\n\n{_markdown(header, rows)}\n{markdown(caption)}\n{notes}"
    texts = {
        "table.md": text,
        "table.csv": _csv(cells),
        "table.tex": _latex(header, rows, f"{study.title}. {caption}"),
        "table.html": _html(one_line(study.title), header, rows, one_line(caption), picture),
        PICTURE_FILE: picture,
    }
    with written_aside(study.folder) as aside:
        for name, content in texts.items():
            (aside / name).write_text(content, encoding="utf-8")
    return text


def table_rows(study: Study, cells: list[Cell]) -> tuple[list[str], Rows]:
    """The table in words: for each column the score, its difference, and the published number if any has one.

    Args:
        study: its arms and columns.
        cells: of `study_cells`.

    Returns:
        The header and one row of as many entries for each arm.
    """
    parts: list[tuple[str, Callable[[Cell], str]]] = [
        ("", lambda cell: _score(cell, study.num_seeds)),
        (f", to {study.baseline}", lambda cell: _interval(cell.difference)),
    ]
    if study.published:
        parts.append((", published", lambda cell: "" if cell.published is None else f"{cell.published:.1f}"))
    header = ["", *(one_line(column + suffix) for column in study.columns for suffix, _ in parts)]
    rows = [
        [one_line(arm), *(text(cell) for cell in cells if cell.arm == arm for _, text in parts)]
        for arm in study.arms
    ]
    return header, rows


def _protocol(study: Study) -> str:
    """How the runs predict their test images, by column where columns differ."""
    columns: dict[str, dict[str, None]] = {}
    for run in study.runs:
        columns.setdefault(_inference_in_words(run.inference), {})[run.column] = None
    if len(columns) == 1:
        return next(iter(columns))
    return "; ".join(f"{words} ({', '.join(names)})" for words, names in columns.items())


def _inference_in_words(inference: Inference) -> str:
    words = "whole"
    if inference.window is not None:
        last = "inside the image" if inference.layout == "shifted" else "cut at its border"
        words = f"through windows of {inference.window} pixels, the last ones {last}"
    if inference.multiple is not None:
        words += f", with sides of multiples of {inference.multiple} pixels"
    if inference.scales != (1.0,):
        words += f", at {', '.join(f'{scale:g}' for scale in inference.scales)} times their size"
    return words + (", also mirrored" if inference.flip else "")


def _score(cell: Cell, num_seeds: int) -> str:
    if cell.mean is None:
        return "-"
    spread = "" if cell.deviation is None else f" ± {cell.deviation:.1f}"
    unfinished = f" (n={len(cell.scores)})" if len(cell.scores) < num_seeds else ""
    return f"{cell.mean:.1f}{spread}{unfinished}"


def _interval(interval: Interval | None) -> str:
    return f"{interval.value:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]" if interval else ""


def _markdown(header: list[str], rows: Rows) -> str:
    names = [[*map(markdown, header)], *([markdown(arm), *cells] for arm, *cells in rows)]
    lines = [names[0], ["---"] * len(header), *names[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(cells: list[Cell]) -> str:
    """Numbers as they are, one line a cell."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["arm", "column", "seeds", "mean", "sd", "difference", "low", "high", "published", "scores"]
    )
    for cell in cells:
        difference = cell.difference or ("", "", "")
        scores = " ".join(f"{seed}:{score}" for seed, score in cell.scores.items())
        numbers = [len(cell.scores), cell.mean, cell.deviation, *difference, cell.published]
        writer.writerow([csv_cell(cell.arm), csv_cell(cell.column), *numbers, scores])
    return file.getvalue()


def _latex(header: list[str], rows: Rows, caption: str) -> str:
    def escape(text: str) -> str:
        return re.sub(r"[%_&#${}~^\\]", lambda match: LATEX[match[0]], one_line(text)).replace("±", r"$\pm$")

    lines = [" & ".join(map(escape, line)) + r" \\" for line in (header, *rows)]
    body = "\n".join([lines[0], r"\midrule", *lines[1:]])
    columns = "l" + "r" * (len(header) - 1)
    return (
        "\\begin{table}\n\\centering\n\\begin{tabular}{"
        + columns
        + "}\n\\toprule\n"
        + body
        + "\n\\bottomrule\n"
        "\\end{tabular}\n\\caption{" + escape(caption) + "}\n\\end{table}\n"
    )


def _html(title: str, header: list[str], rows: Rows, caption: str, picture: str) -> str:
    template = load_template("pos_hf.studies", "table.html.j2")
    drawing = picture[picture.index("<svg") :]
    return template.render(title=title, header=header, rows=rows, caption=caption, picture=drawing)


def _drawn(draw: Callable[[Study, list[Cell]], Figure], study: Study, cells: list[Cell]) -> str:
    """A figure as SVG."""
    file = StringIO()
    # the same ids each time
    with matplotlib.rc_context(NAMES_AS_THEY_ARE | ON_ANY_GROUND | {"svg.hashsalt": PICTURE_FILE}):
        draw(study, cells).savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw_panels(study: Study, cells: list[Cell]) -> Figure:
    """One panel a column: every seed a dot, the mean a bar, the baseline's mean a line."""
    figure = Figure(
        figsize=(1.6 + 3.4 * len(study.columns), 0.8 + 0.32 * len(study.arms)), layout="constrained"
    )
    panels = figure.subplots(1, len(study.columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, study.columns, strict=True):
        for y, cell in enumerate(cell for cell in cells if cell.column == column):
            colour = BASELINE_COLOUR if cell.arm == study.baseline else ARM_COLOUR
            axes.plot(list(cell.scores.values()), [y] * len(cell.scores), "o", color=colour, alpha=0.55)
            if cell.mean is not None:
                axes.plot([cell.mean], [y], "|", color=colour, markersize=16, markeredgewidth=2.5)
                if cell.arm == study.baseline:
                    axes.axvline(cell.mean, color=BASELINE_COLOUR, linewidth=0.8, linestyle=":")
        axes.set_title(one_line(column), fontsize=10)
        axes.set_xlabel("test mIoU, %")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(study.arms)), [*map(one_line, study.arms)])
    panels[0].invert_yaxis()
    return figure


def _draw_budget(study: Study, cells: list[Cell]) -> Figure:
    """Scores over the number of labels, every seed a dot, the means joined."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for arm in study.arms:
        colour = BASELINE_COLOUR if arm == study.baseline else ARM_COLOUR
        row = zip(study.budget, (cell for cell in cells if cell.arm == arm), strict=True)
        means = []
        for number, cell in row:
            axes.plot([number] * len(cell.scores), list(cell.scores.values()), "o", color=colour, alpha=0.45)
            if cell.mean is not None:
                means.append((number, cell.mean))
        if means:
            axes.plot(*zip(*means, strict=True), color=colour, linewidth=2, label=one_line(arm))
    axes.set_xscale("log", base=2)
    axes.set_xticks(study.budget, [*map(str, study.budget)])
    axes.set_xlabel("labeled images")
    axes.set_ylabel("test mIoU, %")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure
