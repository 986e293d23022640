"""Precision and coverage of kept pseudo-labels, and the alarm when they fall."""

import math

import pytest
import torch

from pos_hf.evaluation import ConfusionMatrix, collapse_alarm, keep_confident, pseudo_label_quality


def test_precision_and_coverage_count_the_kept_pixels() -> None:
    predictions = torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    labels = torch.tensor([[[0, 1, 1, 1, 0, 255]]])
    confidences = torch.tensor([[[0.9, 0.9, 0.9, 0.1, 0.95, 0.9]]])
    matrix = ConfusionMatrix(3)
    matrix.update(keep_confident(predictions, confidences, 0.9, 3), labels)
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


def test_the_alarm_names_a_fall_of_precision_or_coverage() -> None:
    assert "50 % of the kept pixels are right, after 90 %" in collapse_alarm([0.9, 0.5], [0.5, 0.9])
    assert "20 % of the pixels are kept, after 60 %" in collapse_alarm([0.9, 0.95], [0.6, 0.2])
    assert "0 % of the pixels are kept" in collapse_alarm([0.9, math.nan], [0.6, 0.0])
