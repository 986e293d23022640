"""The HTML page of a dataset's check: labeled images under their masks, classes, sizes, and what to mend."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.data.checks import DataReport
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError
from pos_hf.files import write_text
from pos_hf.reporting.gallery import data_uri
from pos_hf.reporting.pictures import displayed, overlay
from pos_hf.templates import load_template

SHEET = 24  # images of each role with masks
BARS = 12  # intervals of the size histogram


def write_data_page(report: DataReport, out: Path) -> None:
    """Draw one page without any other file.

    Args:
        report: Of `check_data`.
        out: The page; the caller has made sure that nothing of the user's is there.

    Raises:
        TrainingStopped: It cannot be written.
    """
    data = report.data
    page = load_template("pos_hf.reporting", "data.html.j2").render(
        name="the dataset" if data is None else data.name,
        rows=report.num_rows,
        assumptions=() if data is None else data.assumptions,
        findings=sorted(
            report.findings, key=lambda finding: ("error", "warning", "note").index(finding.severity)
        ),
        classes=[] if data is None else _classes(report, data),
        sizes=_histogram(report.long_sides),
        sheets={} if data is None else {role: _sheet(data, role) for role in data.masked_roles},
    )
    write_text(out, page)


def _classes(report: DataReport, data: SegmentationData) -> list[dict[str, Any]]:
    shares = {role: counts / max(counts.sum(), 1) for role, counts in report.label_counts.items()}
    return [
        {
            "name": name,
            "color": "#{:02x}{:02x}{:02x}".format(*data.palette[id]),
            "shares": {role: float(values[id]) for role, values in shares.items()},
        }
        for id, name in data.id2label.items()
    ]


def _histogram(sides: Sequence[int]) -> list[tuple[str, int, float]]:
    """Interval of the longer side in pixels, images in it, and their share of the largest interval's."""
    if not sides:
        return []
    counts, edges = np.histogram(sides, bins=min(BARS, len(set(sides))))
    return [
        (f"{low:.0f} to {high:.0f}", int(count), count / counts.max())
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _sheet(data: SegmentationData, role: str) -> list[tuple[str, str]]:
    """Name and picture of images evenly drawn from a role; unreadable ones are among the findings."""
    rows, pictures = data.masked_roles[role], []
    for index in np.linspace(0, len(rows) - 1, min(SHEET, len(rows)), dtype=int).tolist():
        try:
            row = rows[index]
        except InputError:
            continue
        shown = overlay(displayed(row["image"]), np.asarray(row["mask"]), data.palette)
        pictures.append((row["id"], data_uri(shown)))
    return pictures
