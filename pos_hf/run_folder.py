"""Every file of a run's folder by name, and what those say that people read: log, scores, settings, pictures.
Nothing is drawn here and torch is not needed."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf.errors import InputError, first_sentence
from pos_hf.files import MANIFEST, damaged, read_json
from pos_hf.text import one_line

RUN_FILE = "run.json"  # the settings
STATE_FILE = "trainer_state.json"  # the log
SCORES_FILE, COUNTS_FILE = "metrics.json", "per_image.npz"
LANDSCAPE_FILE = "landscape.jsonl"
CONFLICT_FILE, CONFLICT_PICTURE = "conflict.json", "conflict.svg"
FAILURE_FILE = "not_finite.json"
CARD_FILE, REPORT_FILE = "README.md", "report.html"
PROPOSAL_FILE = "proposed.yaml"  # the config of `pos-hf train FOLDER`
EXAMPLES, WORST, PSEUDO_LABELS = "examples", "worst", "pseudo_labels"
"""Folders of pictures."""
STUDENT_FOLDER = "student"  # beside the exported teacher
ADAPTER_FOLDER = "adapter"  # what LoRA trained, in PEFT's files
OUTPUTS = (
    ADAPTER_FOLDER,
    CARD_FILE,
    "config.json",
    CONFLICT_FILE,
    CONFLICT_PICTURE,
    EXAMPLES,
    LANDSCAPE_FILE,
    MANIFEST,
    SCORES_FILE,
    "model.safetensors",
    FAILURE_FILE,
    COUNTS_FILE,
    "preprocessor_config.json",
    PROPOSAL_FILE,
    PSEUDO_LABELS,
    REPORT_FILE,
    STUDENT_FOLDER,
    STATE_FILE,
    WORST,
)
"""What a run writes beside its checkpoints and run.json."""
TEACHER_FOLDER, METHOD_STATE, IDENTITY_FILE = "teacher", "method.safetensors", "identity.json"
"""In a checkpoint, beside the Trainer's own files."""
LARGEST = 1e38
"""What a logged 32-bit number may be; an axis takes no more."""
SHARES = ("mean_iou", "mean_iou_absent_zero", "overall_accuracy")
"""Scores from 0 to 1; null where no pixel was labeled."""


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
        return read_landscape(self.folder / LANDSCAPE_FILE)

    @property
    def scored_role(self) -> str:
        """Whose images metrics.json scores."""
        return scored_role(self.metrics)

    def paired_counts(self, baseline: "Run") -> tuple[np.ndarray, np.ndarray] | None:
        """`image_areas` of both; None unless of the same images, classes and labeled pixels."""
        own, other = self.image_areas, baseline.image_areas
        if own is None or other is None or not np.array_equal(own[:, 2], other[:, 2]):
            return None
        if self.image_ids != baseline.image_ids or [*self.class_iou] != [*baseline.class_iou]:
            return None
        return own, other

    @property
    def evaluated_images(self) -> str:
        """What the evaluations of the log scored: "test images" or "selection images"."""
        return f"{self.settings.get('facts.evaluated_role') or 'evaluated'} images"

    @property
    def log_is_comparable(self) -> bool:
        """Whether the evaluations of the log scored the images of metrics.json, not the selection set."""
        return self.settings.get("facts.evaluated_role") == self.scored_role

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
        InputError: A folder is no finished run, is given twice, or holds a damaged file.
    """
    folders = [folder.resolve() for folder in folders]
    if len(set(folders)) < len(folders):
        raise InputError("The same run is given twice.")
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return [_read_run(folder, one_line("/".join(folder.parts[-depth:]))) for folder in folders]


def _read_run(folder: Path, name: str) -> Run:
    if not (folder / STATE_FILE).exists():
        raise InputError(f"'{name}' holds no {STATE_FILE}: give the output folder of a training run.")
    metrics = read_scores(folder)
    settings = _flatten(_read(folder / RUN_FILE)) if (folder / RUN_FILE).exists() else {}
    ids, areas = read_counts(folder)
    names = metrics.get("per_category_iou", {})
    if areas is not None and names and len(names) != areas.shape[2]:
        why = f"it counts {areas.shape[2]} classes, and {SCORES_FILE} names {len(names)}"
        raise damaged(folder / COUNTS_FILE, why)
    return Run(name, folder, _read_log(folder / STATE_FILE), metrics, settings, ids, areas)


def read_scores(folder: Path) -> dict[str, Any]:
    """metrics.json of a run, {} where there is none.

    Raises:
        InputError: It is damaged.
    """
    file = folder / SCORES_FILE
    if not file.exists():
        return {}
    metrics = _read(file)
    classes, protocol = metrics.get("per_category_iou", {}), metrics.get("protocol", {})
    if not isinstance(classes, dict) or not isinstance(protocol, dict):
        raise damaged(file, "per_category_iou and protocol are no mappings")
    for name, value in [(key, metrics[key]) for key in SHARES if key in metrics] + [*classes.items()]:
        if not (value is None or (isinstance(value, int | float) and 0 <= value <= 1)):
            raise damaged(file, f"{name} is {value!r}, no share")
    return metrics


def scored_role(metrics: dict[str, Any]) -> str:
    """Whose images metrics.json scores: "test", or "selection" where a run has no test images."""
    return metrics.get("protocol", {}).get("role") or "test"


def read_counts(folder: Path) -> tuple[list[str], np.ndarray | None]:
    """per_image.npz of a run.

    Returns:
        Ids of the images, and intersection, predicted and labeled pixels of each and class, int64 [N, 3, C];
        [] and None where there is no such file.

    Raises:
        InputError: It is damaged.
    """
    file = folder / COUNTS_FILE
    if not file.exists():
        return [], None
    try:
        with file.open("rb") as stored, np.load(stored) as per_image:  # numpy leaves a damaged file open
            ids, areas = per_image["ids"], per_image["areas"]
        counts = areas.astype(np.int64)
    except Exception as error:  # a damaged archive fails in zipfile, in zlib or in numpy, each in its own way
        raise damaged(file, first_sentence(error)) from error
    if areas.dtype.kind not in "iu" or areas.ndim != 3 or areas.shape[1] != 3 or 0 in areas.shape:
        raise damaged(file, f"its areas are {areas.dtype} {list(areas.shape)}, no counts [N, 3, C]")
    if ids.shape != areas.shape[:1] or ids.dtype.kind not in "Uiu":
        raise damaged(file, f"it has {ids.dtype} ids {list(ids.shape)} for {len(areas)} images")
    if counts.min() < 0 or counts.max() >= 2**40 or (counts[:, :1] > counts[:, 1:]).any():
        raise damaged(file, "its numbers of pixels cannot be")
    return [one_line(id) for id in ids.tolist()], counts


def read_landscape(file: Path) -> list[dict[str, Any]]:
    """The lines of landscape.jsonl: settings, points, sharpness; [] unless it was measured to the end.

    Raises:
        InputError: It is damaged.
    """
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        if not isinstance(error, json.JSONDecodeError) or not _is_cut_off(text):
            raise damaged(file, first_sentence(error)) from error
        return []
    if not lines or not isinstance(lines[-1], dict) or "top_eigenvalue" not in lines[-1]:
        return []
    settings, *points, sharpness = lines
    try:
        positions = [point["position"] for point in points]
        values = [point[key] for point in points for key in ("loss", "mean_iou")]
        values += [sharpness[key] for key in ("epsilon_sharpness", "rho", "top_eigenvalue")]
        side, dimensions = settings["points"], settings["dimensions"]
        is_whole = dimensions in (1, 2) and len(points) == side**dimensions
        is_whole = is_whole and all(len(position) == dimensions for position in positions)
        is_whole = is_whole and all(_finite(step) for position in positions for step in position)
        # far from the weights a loss may be infinite
        is_whole = is_whole and all(_finite(value) or math.isinf(value) or value != value for value in values)
    except (KeyError, TypeError, OverflowError) as error:
        raise damaged(file, f"{type(error).__name__}: {first_sentence(error)}") from error
    if not is_whole:
        raise damaged(file, "it is no whole grid of points")
    return lines


def _is_cut_off(text: str) -> bool:
    """Whether lines are being written, or were when an interruption came."""
    *whole, _ = text.split("\n")
    try:
        return all(isinstance(json.loads(line), dict) for line in whole)
    except ValueError:
        return False


def _read_log(file: Path) -> list[dict[str, Any]]:
    log = _read(file).get("log_history")
    if not isinstance(log, list):
        raise damaged(file, "it holds no log_history")
    for entry in log:
        step = entry.get("step") if isinstance(entry, dict) else None
        if type(step) is not int or not 0 <= step < 2**53:
            raise damaged(file, "an entry of its log_history has no step")
    return log


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, every text in it on one line."""
    try:
        return _printable(read_json(file))
    except RecursionError as error:
        raise damaged(file, "it is nested too deeply") from error


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _printable(value: Any) -> Any:
    """The same value, every text in it on one line."""
    if isinstance(value, dict):
        return {one_line(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return one_line(value) if isinstance(value, str) else value


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST
