"""The first lines of a report, from logs made by hand."""

from dataclasses import replace

import numpy as np

from pos_hf.reporting.answers import answers
from pos_hf.run_folder import Run, read_runs

from .fake_run import NAMES


def with_log(run: Run, **last: float) -> Run:
    """The run with one more evaluation at its end."""
    step = run.log[-1]["step"] + 1
    return replace(run, log=[*run.log, {"step": step, **last}])


def test_one_run_does_not_tell_what_unlabeled_images_are_worth(make_run) -> None:
    said = dict(answers(read_runs([make_run("run")])))
    assert "--method supervised" in said["Is it better?"]


def test_the_difference_of_two_runs_is_that_of_their_counts(make_run) -> None:
    first, second = read_runs([make_run("first"), make_run("second")])
    assert first.image_areas is not None
    perfect = np.repeat(first.image_areas[:, 2:], 3, axis=1)  # intersection, predicted and labeled alike
    said = dict(answers([first, replace(second, image_areas=perfect)]))
    intersection, predicted, labeled = first.image_areas.sum(0)
    expected = 100 * (1 - np.nanmean(intersection / (predicted + labeled - intersection)))
    assert f"gains {expected:+.1f} points against first" in said["Is it better?"]


def test_classes_whose_pseudo_labels_are_wrong_are_to_be_labeled(make_run) -> None:
    (run,) = read_runs([make_run("run")])
    precision = {f"eval_pseudo_label_precision_{name}": 0.9 for name in NAMES}
    coverage = {f"eval_pseudo_label_coverage_{name}": 0.6 for name in NAMES}
    precision[f"eval_pseudo_label_precision_{NAMES[2]}"] = 0.31
    coverage[f"eval_pseudo_label_coverage_{NAMES[1]}"] = 0.001
    said = dict(answers([with_log(run, **precision, **coverage)]))["What next?"]
    assert f"{NAMES[2]} (31 % right)" in said and NAMES[3] not in said
    assert f"Hardly a pixel of {NAMES[1]}" in said and "logit_adjustment" in said
    adjusted = replace(run, settings=run.settings | {"training.method_options.logit_adjustment": True})
    said = dict(answers([with_log(adjusted, **precision, **coverage)]))["What next?"]
    assert f"Hardly a pixel of {NAMES[1]}" in said and "logit_adjustment" not in said


def test_a_score_that_still_rises_asks_for_more_steps(make_run) -> None:
    (run,) = read_runs([make_run("run")])
    rising = with_log(with_log(run, eval_mean_iou=0.5), eval_mean_iou=0.53)
    assert "rose by 3.0 points" in dict(answers([rising]))["What next?"]
    level = with_log(with_log(run, eval_mean_iou=0.5), eval_mean_iou=0.505)
    assert "Train longer" not in dict(answers([level])).get("What next?", "")
