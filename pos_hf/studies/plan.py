"""A study file: arms x columns x seeds, each run a config of its own. Nothing is started here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pos_hf.cli.config import parse_config, read_yaml
from pos_hf.errors import InputError, nearest

KEYS = ("title", "config", "output_dir", "baseline", "num_processes", "arms", "columns", "seeds", "published")
SCORES_FILE = "metrics.json"


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a study.

    Args:
        arm: what is compared, a row of the table.
        column: on which data, a column of the table.
        seed: its number.
        folder: where the run lies.
        settings: its whole config, `output_dir` included.
    """

    arm: str
    column: str
    seed: int
    folder: Path
    settings: dict[str, Any]

    @property
    def config_file(self) -> Path:
        """Beside the run's folder, which the run itself fills."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log_file(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def is_done(self) -> bool:
        """Whether the run has been scored."""
        return (self.folder / SCORES_FILE).exists()


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Args:
        title: heading of the table.
        folder: of the study.
        baseline: the arm that the others are compared with.
        num_processes: of each run.
        arms: names of the rows.
        columns: names of the columns.
        runs: arms x columns x seeds.
        published: published mIoU in percent of an arm, in the order of the columns; None where there is none.
    """

    title: str
    folder: Path
    baseline: str
    num_processes: int
    arms: list[str]
    columns: list[str]
    runs: list[PlannedRun]
    published: dict[str, list[float | None]]


def read_study(path: Path) -> Study:
    """Read a study file and check the config of every run in it.

    Args:
        path: YAML with `title`, `config` (relative to the file), `output_dir`, `baseline`, `arms`, `columns`,
            `seeds`; optional `num_processes` and `published`. An arm, a column and a seed are entries of the
            config to replace; `config` among them replaces the file. Arms win over columns, seeds over both.

    Returns:
        The study.

    Raises:
        InputError: a key or a run's config cannot be used, or a run's folder holds a run with other settings.
    """
    values = read_yaml(path)
    for key in values:
        if key not in KEYS:
            raise InputError(f"{path}: unknown key {key!r}, did you mean {nearest(key, KEYS)!r}?")
    missing = [key for key in KEYS[:4] + KEYS[5:8] if key not in values]
    if missing:
        raise InputError(f"{path} needs {', '.join(missing)}")
    arms, columns = _entries(path, "arms", values["arms"]), _entries(path, "columns", values["columns"])
    published = values.get("published") or {}
    for kind, names in (("baseline", [values["baseline"]]), ("published", published)):
        for name in names:
            if name not in arms:
                raise InputError(
                    f"{path}: {kind} names {name!r}, which is no arm; arms are {', '.join(arms)}"
                )
    for name, numbers in published.items():
        if len(numbers) != len(columns):
            raise InputError(f"{path}: published numbers of {name!r} must be {len(columns)}, one a column")
    seeds = values["seeds"]
    if not seeds or not all(isinstance(entry, dict) and "seed" in entry for entry in seeds):
        raise InputError(f"{path}: seeds is a list such as [{{seed: 0}}, {{seed: 1}}]")
    folder = Path(values["output_dir"])
    runs = [
        _planned_run(path, values["config"], folder, (column, columns[column]), (arm, arms[arm]), seed)
        for seed in seeds
        for column in columns
        for arm in arms
    ]
    study = Study(
        title=values["title"],
        folder=folder,
        baseline=values["baseline"],
        num_processes=values.get("num_processes", 1),
        arms=list(arms),
        columns=list(columns),
        runs=runs,
        published=published,
    )
    _check(study)
    return study


def _entries(path: Path, key: str, value: Any) -> dict[str, dict[str, Any]]:
    if (
        not isinstance(value, dict)
        or not value
        or not all(isinstance(v, dict | None) for v in value.values())
    ):
        raise InputError(
            f"{path}: {key} maps each name to config entries, such as {{uniform: {{strategy: uniform}}}}"
        )
    return {str(name): entries or {} for name, entries in value.items()}


def _planned_run(
    path: Path,
    config: str,
    folder: Path,
    column: tuple[str, dict[str, Any]],
    arm: tuple[str, dict[str, Any]],
    seed: dict[str, Any],
) -> PlannedRun:
    changes = column[1] | arm[1] | seed
    settings = read_yaml(path.parent / changes.pop("config", config))
    if "strategy" in changes:
        settings.pop("strategy_options", None)  # they belong to the file's own strategy
    if "method" in changes:
        settings.pop("method_options", None)
    run = folder / _slug(column[0]) / _slug(arm[0]) / f"seed_{seed['seed']}"
    return PlannedRun(arm[0], column[0], seed["seed"], run, settings | changes | {"output_dir": str(run)})


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


def _check(study: Study) -> None:
    folders = [run.folder for run in study.runs]
    first = study.runs[0]
    for run in study.runs:
        if folders.count(run.folder) > 1:
            raise InputError(f"two runs of the study share the folder {run.folder}: give them other names")
        if run.folder.exists() and yaml.safe_load(run.config_file.read_text()) != run.settings:
            raise InputError(
                f"{run.folder} was begun with other settings ({run.config_file}): remove it, or choose "
                "another output_dir for the study"
            )
    for run in study.runs:
        run.config_file.parent.mkdir(parents=True, exist_ok=True)
        run.config_file.write_text(yaml.safe_dump(run.settings, sort_keys=False))
        # every key and value once: the seeds of one arm differ in the seed's own entries alone
        if run.seed == first.seed or (run.arm, run.column) == (first.arm, first.column):
            parse_config(run.config_file, [])
