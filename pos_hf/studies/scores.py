"""A study's numbers: mean and spread over seeds, and paired differences to the baseline. Nothing is drawn
here."""

import json
import statistics
from dataclasses import dataclass

import numpy as np

from pos_hf.files import COUNTS_FILE, SCORES_FILE
from pos_hf.reporting.intervals import Interval, paired_difference
from pos_hf.studies.plan import PlannedRun, Study

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom; the last serves for more."""


@dataclass(frozen=True)
class Cell:
    """One arm on one column; mIoU in percent.

    Args:
        arm: the row.
        column: the column.
        scores: of each finished seed.
        difference: to the baseline, paired by seed; None for the baseline itself and where no seed has both.
        published: the paper's number, if it has one.
    """

    arm: str
    column: str
    scores: dict[int, float]
    difference: Interval | None
    published: float | None

    @property
    def mean(self) -> float | None:
        """Over seeds."""
        return statistics.mean(self.scores.values()) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None


def study_cells(study: Study) -> list[Cell]:
    """Read the scores of all finished runs.

    Args:
        study: its runs.

    Returns:
        One cell for each arm and column, arm by arm.
    """
    done = {(run.arm, run.column, run.seed): run for run in study.runs if run.is_done}
    seeds = list(dict.fromkeys(run.seed for run in study.runs))
    cells = []
    for arm in study.arms:
        for i, column in enumerate(study.columns):
            runs = {seed: done[arm, column, seed] for seed in seeds if (arm, column, seed) in done}
            baseline = {
                seed: done[study.baseline, column, seed]
                for seed in runs
                if (study.baseline, column, seed) in done
            }
            cells.append(
                Cell(
                    arm,
                    column,
                    {seed: _mean_iou(run) for seed, run in runs.items()},
                    None if arm == study.baseline else _difference(runs, baseline),
                    study.published[arm][i] if arm in study.published else None,
                )
            )
    return cells


def _difference(runs: dict[int, PlannedRun], baseline: dict[int, PlannedRun]) -> Interval | None:
    """Mean over seeds with Student's interval; one seed alone has the bootstrap's over test images."""
    if not baseline:
        return None
    if len(baseline) == 1:
        (seed,) = baseline
        return Interval(
            *(100 * value for value in paired_difference(_areas(runs[seed]), _areas(baseline[seed])))
        )
    differences = [_mean_iou(runs[seed]) - _mean_iou(run) for seed, run in baseline.items()]
    mean = statistics.mean(differences)
    quantile = STUDENT_T[min(len(differences) - 2, len(STUDENT_T) - 1)]
    half = quantile * statistics.stdev(differences) / len(differences) ** 0.5
    return Interval(mean, mean - half, mean + half)


def _mean_iou(run: PlannedRun) -> float:
    return 100 * json.loads((run.folder / SCORES_FILE).read_text())["mean_iou"]


def _areas(run: PlannedRun) -> np.ndarray:
    with np.load(run.folder / COUNTS_FILE) as per_image:
        return per_image["areas"]
