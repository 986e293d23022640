"""Raw scores of a study's runs, one JSON line each: what is recorded is not run again, wherever it ran."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pos_hf.errors import InputError, first_sentence
from pos_hf.run_folder import read_runs

Record = dict[str, Any]


def fingerprint(settings: dict[str, Any], num_processes: int = 1) -> str:
    """Of a run's config, whatever folder it runs in.

    Args:
        settings: the config.
        num_processes: that train, each on a batch of its own.

    Returns:
        12 hexadecimal digits.
    """
    told = {key: value for key, value in settings.items() if key != "output_dir"}
    if num_processes > 1:  # a single one goes without saying in the scores that are recorded
        told["num_processes"] = num_processes
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def read_records(file: Path) -> dict[str, Record]:
    """Read the runs that a file records.

    Args:
        file: of JSON lines; it need not exist.

    Returns:
        The lines by their `settings`, the fingerprint of a config.

    Raises:
        InputError: a line is damaged.
    """
    records: dict[str, Record] = {}
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            is_whole = isinstance(record["settings"], str) and 0 <= record["mean_iou"] <= 1
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{file} is damaged in line {number} ({first_sentence(error)}): remove it"
            ) from error
        if not is_whole:
            raise InputError(f"{file} is damaged in line {number} (mean_iou is no share): remove it")
        records[record["settings"]] = record
    return records


def add_record(file: Path, names: dict[str, Any], folder: Path) -> None:
    """Append a finished run: the exported teacher's scores, the student's where they are of the same images.

    A run without a score, of no test images, is not recorded.

    Args:
        file: of JSON lines.
        names: what the line begins with: arm, column and seed, and the run's fingerprint as `settings`.
        folder: where the run lies.
    """
    (run,) = read_runs([folder])
    scores, students = run.metrics, run.series("eval_student_mean_iou")[1]
    if scores.get("mean_iou") is None:
        return
    record = names | {name: scores.get(name) for name in ("mean_iou", "overall_accuracy", "per_category_iou")}
    record["student_mean_iou"] = float(students[-1]) if len(students) and run.log_is_comparable else None
    record |= {name: scores.get("protocol", {}).get(name) for name in ("role", "versions")}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(record) + "\n")
