"""What a run's folder says about it: log, scores, settings, examples. Nothing is drawn here and torch is not
needed."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.errors import InputError
from pos_hf.files import COUNTS_FILE, RUN_FILE, SCORES_FILE

EXAMPLES, WORST, PSEUDO_LABELS = "examples", "worst", "pseudo_labels"
"""Folders of pictures in a run's folder."""


@dataclass(frozen=True)
class Run:
    """One run's folder, read.

    Args:
        name: Short name, unique among the runs of a report.
        folder: Where it lies.
        log: The Trainer's log_history: one dict for each logging or evaluation step.
        metrics: metrics.json, {} where there is none.
        settings: run.json, flattened to dotted names, {} where there is none.
        image_ids: Ids of the test images in the order of `image_areas`.
        image_areas: Intersection, predicted and labeled pixels of each image and class, int64 [N, 3, C]; None
            where the run was not evaluated image by image.
    """

    name: str
    folder: Path
    log: list[dict[str, Any]]
    metrics: dict[str, Any]
    settings: dict[str, Any]
    image_ids: list[str]
    image_areas: np.ndarray | None

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values, float64 [n] each, where the log has a finite value of `key`."""
        points = [(entry["step"], entry[key]) for entry in self.log if _finite(entry.get(key))]
        steps, values = np.array(points, dtype=float).reshape(-1, 2).T
        return steps, values

    @cached_property
    def class_iou(self) -> dict[str, float]:
        """IoU by class name as scored at the end, NaN for an absent class; {} where there are no scores."""
        scores = self.metrics.get("per_category_iou", {})
        return {name: math.nan if value is None else value for name, value in scores.items()}

    @cached_property
    def landscape(self) -> list[dict[str, Any]]:
        """The lines of landscape.jsonl: settings, points, sharpness; [] unless it was measured to the end."""
        file = self.folder / "landscape.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return lines if lines and "top_eigenvalue" in lines[-1] else []

    @property
    def examples(self) -> dict[str, Path]:
        """Folder of each example by its name."""
        return {
            path.parent.name: path.parent for path in sorted(self.folder.glob(f"{EXAMPLES}/*/prediction.png"))
        }

    @property
    def alarms(self) -> list[int]:
        """Steps of the evaluations at which the pseudo-labels had become worse."""
        steps, alarms = self.series("eval_pseudo_label_alarm")
        return steps[alarms > 0].astype(int).tolist()

    @property
    def pseudo_labels(self) -> dict[int, Path]:
        """Picture of the pseudo-labels at each evaluation by its step; none of an overwritten run."""
        steps = self.series("eval_pseudo_label_coverage")[0].astype(int).tolist()
        files = {step: self.folder / PSEUDO_LABELS / f"step-{step:06d}.png" for step in steps}
        return {step: file for step, file in files.items() if file.exists()}


def read_runs(folders: list[Path]) -> list[Run]:
    """Read runs and name them by their folders, with as many parents as tell them apart.

    Raises:
        InputError: A folder is no finished run, or is given twice.
    """
    folders = [folder.resolve() for folder in folders]
    if len(set(folders)) < len(folders):
        raise InputError("The same run is given twice.")
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return [_read_run(folder, "/".join(folder.parts[-depth:])) for folder in folders]


def _read_run(folder: Path, name: str) -> Run:
    state = folder / "trainer_state.json"
    if not state.exists():
        raise InputError(f"'{name}' holds no trainer_state.json: give the output folder of a training run.")
    ids: list[str] = []
    areas = None
    if (folder / COUNTS_FILE).exists():
        with np.load(folder / COUNTS_FILE) as per_image:
            ids, areas = per_image["ids"].tolist(), per_image["areas"]
    log = json.loads(state.read_text())["log_history"]
    metrics, settings = _read_json(folder / SCORES_FILE), _flatten(_read_json(folder / RUN_FILE))
    return Run(name, folder, log, metrics, settings, ids, areas)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
