"""A study file: arms x columns x seeds, each run a config of its own. Nothing is started here."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pos_hf.errors import InputError, nearest
from pos_hf.evaluation.inference import Inference, read_inference
from pos_hf.files import write_text
from pos_hf.run_folder import SCORES_FILE
from pos_hf.runs.config import parse_config, read_yaml, shared_method_options
from pos_hf.studies.records import Record, fingerprint, read_records
from pos_hf.values import check_group, check_type


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a study.

    Args:
        arm: what is compared, a row of the table.
        column: on which data, a column of the table.
        seed: its number.
        folder: where the run lies.
        settings: its whole config, `output_dir` included.
        fingerprint: of the settings, by which the study's `scores` name it.
        record: its line of the study's `scores`, if it has been run.
    """

    arm: str
    column: str
    seed: int
    folder: Path
    settings: dict[str, Any]
    fingerprint: str
    record: Record | None = None

    @property
    def config_file(self) -> Path:
        """Beside the run's folder, which the run itself fills."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log_file(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def inference(self) -> Inference:
        """How its test images are predicted."""
        return read_inference(self.settings.get("inference_options"))

    @property
    def is_done(self) -> bool:
        """Whether the run has been scored."""
        return self.record is not None or (self.folder / SCORES_FILE).exists()


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
        scores_file: of the raw scores, to which finished runs are added; None keeps none.
    """

    title: str
    folder: Path
    baseline: str
    num_processes: int
    arms: list[str]
    columns: list[str]
    runs: list[PlannedRun]
    published: dict[str, list[float | None]]
    scores_file: Path | None = None
    budget: tuple[int, ...] = ()
    """Labels of each column, where the study is of `label_budget`."""

    @property
    def num_seeds(self) -> int:
        """Of every arm on every column."""
        return len(self.runs) // (len(self.arms) * len(self.columns))


@dataclass(frozen=True)
class StudyFile:
    """A study as it is written.

    An arm, a column and a seed are entries of the config to replace; `config` among them replaces the file.
    Arms win over columns, seeds over both.

    Args:
        title: heading of the table.
        config: what all runs share, relative to the study's file.
        output_dir: of the study.
        baseline: the arm that the others are compared with.
        arms: rows of the table, entries by name.
        columns: columns of the table, entries by name.
        seeds: entries, `seed` among them.
        num_processes: of each run.
        published: mIoU in percent of an arm, one number or null a column.
        scores: file of raw scores, one JSON line a run, beside the study's; runs recorded there are done.
    """

    title: str
    config: str
    output_dir: str
    baseline: str
    arms: dict[str, Any]
    columns: dict[str, Any]
    seeds: list[dict[str, Any]]
    num_processes: int = 1
    published: dict[str, Any] = dataclasses.field(default_factory=dict)
    scores: str | None = None

    def __post_init__(self) -> None:
        check_group(self, {"num_processes": "[1, 65536]"})
        for kind in ("arms", "columns"):
            for name, entries in getattr(self, kind).items():
                check_type(f"{kind}: {name}", entries, dict[str, Any])
        if not (self.arms and self.columns and self.seeds and all("seed" in entry for entry in self.seeds)):
            raise InputError("a study needs arms, columns, and seeds such as [{seed: 0}, {seed: 1}]")
        for kind, names in (("baseline", [self.baseline]), ("published", self.published)):
            for name in names:
                if name not in self.arms:
                    raise InputError(f"{kind} names {name!r}, which is no arm of {', '.join(self.arms)}")
        for name, numbers in self.published.items():
            check_type(f"published: {name}", numbers, list[float | None])
            if len(numbers) != len(self.columns):
                raise InputError(f"published: {name} needs {len(self.columns)} numbers, one a column")


def read_study(path: Path) -> Study:
    """Read a study file and check the config of every run in it.

    Args:
        path: YAML of the fields of `StudyFile`.

    Returns:
        The study.

    Raises:
        InputError: a key or a run's config cannot be used, or a run's folder holds a run with other settings.
    """
    values = read_yaml(path)
    fields = {field.name: field for field in dataclasses.fields(StudyFile)}
    for key in values:
        if key not in fields:
            raise InputError(f"{path}: unknown key {key!r}, did you mean {nearest(str(key), fields)!r}?")
    needed = (name for name, field in fields.items() if field.default_factory is field.default)
    if missing := [name for name in needed if name not in values]:
        raise InputError(f"{path} needs {', '.join(missing)}")
    try:
        file = StudyFile(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return _study(path, file)


def label_budget(config: Path, numbers: Sequence[int], num_seeds: int) -> Study:
    """Plan what more labels would bring: supervised training and a config's own method, over labels.

    Args:
        config: of a run whose labels can be drawn by `num_labeled`; the study goes beside its `output_dir`.
        numbers: of labeled images, each at most what the dataset has.
        num_seeds: of runs for each number; every seed draws other labels.

    Returns:
        The study, with a column for each number.

    Raises:
        InputError: the config cannot be used, or trains without unlabeled images.
    """
    settings = read_yaml(config)
    _, _, args = parse_config(config, [])
    if args.method == "supervised":
        raise InputError(f"{config} trains without unlabeled images: give a config that uses them")
    if len(set(numbers)) < len(numbers) or min(numbers) < 1:
        raise InputError("--label_budget needs different numbers of labels, such as 6,12,24,48")
    name = f"{args.method}, {args.strategy}"
    budget = tuple(sorted(numbers))
    file = StudyFile(
        title=f"{settings.get('dataset', config.stem)}: what more labels would bring",
        config=config.name,
        output_dir=f"{args.output_dir}_label_budget",
        baseline="supervised",
        arms={"supervised": {"method": "supervised"}, name: {}},
        columns={f"{number} labels": {"num_labeled": number} for number in budget},
        seeds=[{"seed": seed, "split_seed": seed} for seed in range(num_seeds)],
    )
    return dataclasses.replace(_study(config, file), budget=budget)


def _study(path: Path, file: StudyFile) -> Study:
    scores_file = None if file.scores is None else path.parent / file.scores
    records = {} if scores_file is None else read_records(scores_file)
    runs = [
        _planned_run(path, file, column, arm, seed, records)
        for seed in file.seeds
        for column in file.columns
        for arm in file.arms
    ]
    study = Study(
        title=file.title,
        folder=Path(file.output_dir),
        baseline=file.baseline,
        num_processes=file.num_processes,
        arms=list(file.arms),
        columns=list(file.columns),
        runs=runs,
        published=file.published,
        scores_file=scores_file,
    )
    _check(study)
    return study


def _planned_run(
    path: Path,
    file: StudyFile,
    column: str,
    arm: str,
    seed: dict[str, Any],
    records: dict[str, Record],
) -> PlannedRun:
    changes = file.columns[column] | file.arms[arm] | seed
    settings = read_yaml(path.parent / changes.pop("config", file.config))
    if "strategy" in changes:
        settings.pop("strategy_options", None)  # they belong to the file's own strategy
    if "method" in changes and (options := shared_method_options(settings.pop("method_options", None))):
        settings["method_options"] = options
    run = Path(file.output_dir) / _slug(column) / _slug(arm) / f"seed_{seed['seed']}"
    settings |= changes | {"output_dir": str(run)}
    own = fingerprint(settings, file.num_processes)
    return PlannedRun(arm, column, seed["seed"], run, settings, own, records.get(own))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


def _check(study: Study) -> None:
    folders = [run.folder for run in study.runs]
    first = study.runs[0]
    for run in study.runs:
        if folders.count(run.folder) > 1:
            raise InputError(f"two runs of the study share the folder {run.folder}: give them other names")
        begun = read_yaml(run.config_file) if run.folder.exists() and run.config_file.exists() else None
        if run.folder.exists() and begun != run.settings:
            raise InputError(
                f"{run.folder} was begun with other settings ({run.config_file}): remove it, or choose "
                "another output_dir for the study"
            )
    for run in study.runs:
        text = yaml.safe_dump(run.settings, sort_keys=False)
        if not run.config_file.exists() or run.config_file.read_text() != text:  # a run may be reading it
            write_text(run.config_file, text)
        # every key and value once: the seeds of one arm differ in the seed's own entries alone
        if run.seed == first.seed or (run.arm, run.column) == (first.arm, first.column):
            parse_config(run.config_file, [])
