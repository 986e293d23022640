"""Precision and coverage of kept pseudo-labels, and the alarm when they fall."""

import logging
import math

import numpy as np
import pytest
import torch
from accelerate import PartialState

from pos_hf.evaluation import (
    ConfusionMatrix,
    collapse_alarm,
    keep_confident,
    labeler_of,
    logged_quality,
    pseudo_label_quality,
)
from pos_hf.evaluation.pseudo_labels import starvation_alarm, unlearning_alarm
from pos_hf.methods import get_method
from pos_hf.methods.confidence import RULES
from tests.training.tiny import tiny_trainer


def test_precision_and_coverage_count_the_kept_pixels() -> None:
    labels = torch.tensor([[[0, 1, 1, 1, 0, 255]]])
    probabilities = torch.tensor(
        [[[[0.9, 0.9, 0.1, 0.3, 0.0, 0.9]], [[0.1, 0.1, 0.9, 0.4, 0.95, 0.1]], [[0, 0, 0, 0.3, 0.05, 0]]]]
    )
    matrix = ConfusionMatrix(3)
    matrix.update(keep_confident(probabilities, 0.9), labels)
    quality = pseudo_label_quality(matrix.counts, {0: "a", 1: "b", 2: "c"})
    assert quality["precision"] == pytest.approx(2 / 4)
    assert quality["coverage"] == pytest.approx(4 / 5)
    assert quality["per_category_precision"]["a"] == quality["per_category_precision"]["b"] == 1 / 2
    assert quality["per_category_coverage"]["a"] == 1
    assert quality["per_category_coverage"]["b"] == pytest.approx(2 / 3)
    assert math.isnan(quality["per_category_precision"]["c"])


def test_the_alarm_is_silent_while_training_goes_well() -> None:
    assert collapse_alarm([], []) is None
    assert collapse_alarm([0.7, 0.8, 0.9, 0.88], [0.1, 0.4, 0.5, 0.45]) is None
    assert collapse_alarm([math.nan, 0.9], [0.0, 0.2]) is None
    assert (
        collapse_alarm([1.0, 0.96, 0.85, 0.8], [0.01, 0.2, 0.45, 0.6]) is None
    )  # at first the easiest pixels


def test_the_alarm_names_a_fall_of_precision_or_coverage() -> None:
    assert "50 % of the kept pixels are right, after 90 %" in collapse_alarm([0.9, 0.5], [0.5, 0.9])
    assert "20 % of the pixels are kept, after 60 %" in collapse_alarm([0.9, 0.95], [0.6, 0.2])
    assert "0 % of the pixels are kept" in collapse_alarm([0.9, math.nan], [0.6, 0.0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("alignment", [False, True])
def test_the_labels_that_are_measured_are_those_that_training_keeps(rule, alignment) -> None:
    options = {} if rule in ("fixed", "percentile", "covar") else {"decay": 0.1}
    method = get_method("fixmatch", threshold={"name": rule, **options}, distribution_alignment=alignment)
    if method.alignment:
        method.alignment.decay = 0.1
    logits, labels = 3 * torch.randn(2, 3, 16, 16), torch.randint(0, 3, (2, 16, 16))
    method.supervised_loss(logits, labels)
    padding = torch.zeros(2, 16, 16, dtype=torch.bool)
    method.pseudo_labels(3 * torch.randn(2, 3, 16, 16), padding)
    trained_on = method.pseudo_labels(logits, padding, observe=False)
    state = {name: value.clone() for name, value in method.state_dict().items()}
    kept = labeler_of(method)(logits.softmax(1))
    assert 0 < (kept == 3).sum() < kept.numel()
    assert torch.equal(kept != 3, trained_on.weights >= 0.5)
    assert torch.equal(kept[kept != 3], trained_on.labels[kept != 3])
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


def test_nothing_is_measured_without_a_rule_or_before_its_first_batch() -> None:
    assert labeler_of(get_method("supervised")) is None
    assert labeler_of(get_method("mean_teacher")) is None
    assert labeler_of(get_method("fixmatch", threshold="freematch")) is None
    balanced = {"name": "cross_entropy", "class_weights": "balanced"}
    assert labeler_of(get_method("fixmatch", supervised_loss=balanced, logit_adjustment=True)) is not None
    assert labeler_of(get_method("fixmatch", distribution_alignment=True)) is None
    assert labeler_of(get_method("fixmatch")) is not None


def test_a_collapse_is_logged_as_a_key_and_as_a_warning(caplog) -> None:
    PartialState(cpu=True)
    history: list[dict] = [{"loss": 1.0}]
    for right, alarm in ((9, 0.0), (8.5, 0.0), (4, 1.0)):
        quality = {"precision": right / 10, "coverage": 0.5}
        quality |= {"per_category_precision": {"cat": right / 10}, "per_category_coverage": {"cat": 0.5}}
        with caplog.at_level(logging.WARNING):
            history.append(logged_quality(quality, {"cat": 0.9}, history, "eval"))
        assert history[-1]["eval_pseudo_label_alarm"] == alarm
        assert history[-1]["eval_pseudo_label_precision_cat"] == right / 10
        assert ("40 % of the kept pixels are right" in caplog.text) == bool(alarm)


def test_a_class_without_pseudo_labels_is_named_after_three_evaluations(caplog) -> None:
    PartialState(cpu=True)
    history: list[dict] = []
    for evaluation, kept in enumerate([0.5, math.nan, math.nan, math.nan]):
        quality = {"precision": 0.9, "coverage": 0.5}
        quality |= {"per_category_precision": {"road": 0.9, "pole": kept, "absent": math.nan}}
        quality |= {"per_category_coverage": {"road": 0.6, "pole": 0.0, "absent": math.nan}}
        ious = {"road": 0.9, "pole": 0.04, "absent": math.nan}
        caplog.clear()
        history.append(logged_quality(quality, ious, history, "eval"))
        assert history[-1]["eval_pseudo_label_alarm"] == float(evaluation == 3)
        assert ("No pixel was kept as pole at the last 3" in caplog.text) == (evaluation == 3)


def test_a_method_that_adjusts_for_rare_classes_is_not_told_to(caplog) -> None:
    PartialState(cpu=True)
    history: list[dict] = []
    for iou in (0.3, 0.2, 0.05):
        quality = {"precision": 0.9, "coverage": 0.5}
        quality |= {"per_category_precision": {"road": 0.9, "pole": math.nan}}
        quality |= {"per_category_coverage": {"road": 0.6, "pole": 0.0}}
        with caplog.at_level(logging.WARNING):
            logged = logged_quality(quality, {"road": 0.9, "pole": iou}, history, "eval", True)
        history.append(logged | {"eval_iou_pole": iou})
    assert [entry["eval_pseudo_label_alarm"] for entry in history] == [0, 0, 1]
    assert "pole (5 after 30 %)" in caplog.text and "logit_adjustment" not in caplog.text


def test_no_class_starves_while_nothing_is_kept_at_all() -> None:
    assert starvation_alarm({"road": [math.nan] * 4, "pole": [math.nan] * 4}) is None


def test_a_class_that_training_unlearns_is_named_with_its_numbers() -> None:
    assert unlearning_alarm({"fence": [0.1, 0.26, 0.14], "pole": [0.04, 0.0]}) is None
    assert "fence (8 after 26 %)" in unlearning_alarm({"fence": [0.26, 0.08], "sky": [math.nan, math.nan]})


def test_training_logs_the_quality_of_the_teachers_pseudo_labels(tmp_path, dataset) -> None:
    trainer = tiny_trainer(str(tmp_path), method="fixmatch", max_steps=2)
    trainer.train()
    trainer.evaluate(dataset)
    (logged,) = (entry for entry in trainer.state.log_history if "eval_mean_iou" in entry)
    kept = right = total = 0
    teacher = trainer.teacher.model
    for row in dataset:
        pixel_values = trainer.processing_class(row["image"], return_tensors="pt")["pixel_values"]
        confidence, prediction = teacher(pixel_values).logits.softmax(1)[0].max(0)
        labels = torch.tensor(np.asarray(row["mask"]), dtype=torch.int64)
        confident = (labels != 255) & (confidence >= 0.36)
        kept, right = kept + confident.sum(), right + (confident & (prediction == labels)).sum()
        total += (labels != 255).sum()
    assert 0 < right < kept < total
    assert logged["eval_pseudo_label_precision"] == pytest.approx((right / kept).item())
    assert logged["eval_pseudo_label_coverage"] == pytest.approx((kept / total).item())
    assert logged["eval_pseudo_label_alarm"] == 0
