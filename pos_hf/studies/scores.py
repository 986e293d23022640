"""A study's numbers: mean and spread over seeds, and paired differences to the baseline. Nothing is drawn
here."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pos_hf.errors import InputError
from pos_hf.files import damaged
from pos_hf.reporting.intervals import Interval, paired_difference
from pos_hf.run_folder import SCORES_FILE, read_counts, read_scores, scored_role
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


@dataclass(frozen=True)
class Score:
    """What a study reads of one finished run.

    Args:
        mean_iou: on the images of the role, in percent.
        role: test, or selection where a run has no test images.
        image_ids: of these images.
        image_areas: int64 [N, 3, C]; None where the run was not evaluated image by image.
    """

    mean_iou: float
    role: str
    image_ids: list[str]
    image_areas: np.ndarray | None


Scores = dict[tuple[str, str, int], Score]
"""By arm, column and seed."""


def read_study_scores(study: Study) -> tuple[Scores, list[str]]:
    """Read the scores of all finished runs.

    Args:
        study: its runs.

    Returns:
        The scores, and a sentence about each run whose files are damaged and which is left out.
    """
    scores, left_out = {}, []
    for run in study.runs:
        try:
            if run.is_done:
                scores[run.arm, run.column, run.seed] = _read_score(run)
        except InputError as error:
            left_out.append(f"{run.arm}, {run.column}, seed {run.seed} is left out: {error}")
    return scores, left_out


def study_cells(study: Study, scores: Scores) -> list[Cell]:
    """The table's cells.

    Args:
        study: its arms and columns.
        scores: of `read_study_scores`.

    Returns:
        One cell for each arm and column, arm by arm.
    """
    seeds = list(dict.fromkeys(run.seed for run in study.runs))
    cells = []
    for arm in study.arms:
        for i, column in enumerate(study.columns):
            runs = {seed: scores[arm, column, seed] for seed in seeds if (arm, column, seed) in scores}
            baseline = {
                seed: scores[study.baseline, column, seed]
                for seed in runs
                if (study.baseline, column, seed) in scores
                and scores[study.baseline, column, seed].role == runs[seed].role
            }
            cells.append(
                Cell(
                    arm,
                    column,
                    {seed: run.mean_iou for seed, run in runs.items()},
                    None if arm == study.baseline else _difference(runs, baseline),
                    study.published[arm][i] if arm in study.published else None,
                )
            )
    return cells


def _difference(runs: dict[int, Score], baseline: dict[int, Score]) -> Interval | None:
    """Mean over seeds with Student's interval; one seed alone has the bootstrap's over test images."""
    if not baseline:
        return None
    if len(baseline) == 1:
        ((seed, other),) = baseline.items()
        areas, other_areas = runs[seed].image_areas, other.image_areas
        if areas is None or other_areas is None or runs[seed].image_ids != other.image_ids:
            return None
        difference = paired_difference(areas, other_areas)
        return Interval(*(100 * value for value in difference))
    return over_seeds([runs[seed].mean_iou - run.mean_iou for seed, run in baseline.items()])


def over_seeds(differences: Sequence[float]) -> Interval:
    """Mean of at least two seeds' differences with Student's 95 % interval."""
    mean = statistics.mean(differences)
    quantile = STUDENT_T[min(len(differences) - 2, len(STUDENT_T) - 1)]
    half = quantile * statistics.stdev(differences) / len(differences) ** 0.5
    return Interval(mean, mean - half, mean + half)


def _read_score(run: PlannedRun) -> Score:
    if run.record is not None:
        return Score(100 * run.record["mean_iou"], run.record.get("role") or "test", [], None)
    scores = read_scores(run.folder)
    if scores.get("mean_iou") is None:
        raise damaged(run.folder / SCORES_FILE, "it holds no mean_iou")
    return Score(100 * scores["mean_iou"], scored_role(scores), *read_counts(run.folder))
