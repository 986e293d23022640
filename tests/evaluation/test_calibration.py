"""Expected calibration error."""

import pytest
import torch

from pos_hf.evaluation.calibration import BINS, calibration_counts, expected_calibration_error


def test_the_error_equals_a_loop_over_bins() -> None:
    confidences = torch.rand(2, 20, 30)
    predictions, labels = torch.randint(0, 3, (2, 2, 20, 30))
    labels[torch.rand(labels.shape) < 0.2] = 255
    kept = labels != 255
    error = 0.0
    for i in range(BINS):
        inside = kept & (confidences >= i / BINS) & (confidences < (i + 1) / BINS)
        if inside.any():
            accuracy = (predictions[inside] == labels[inside]).double().mean()
            error += inside.sum() / kept.sum() * (confidences[inside].double().mean() - accuracy).abs()
    counts = calibration_counts(confidences, predictions, labels)
    assert expected_calibration_error(counts) == pytest.approx(float(error), abs=1e-5)


def test_confidences_that_come_true_have_no_error() -> None:
    confidences = torch.full((1, 1, 1000), 0.75)
    labels = (torch.arange(1000) % 4 == 0).long()[None, None]  # three in four are class 0, as predicted
    counts = calibration_counts(confidences, torch.zeros_like(labels), labels)
    assert expected_calibration_error(counts) < 1e-6


def test_a_confidence_of_one_falls_into_the_last_bin() -> None:
    counts = calibration_counts(torch.ones(1, 1, 3), torch.zeros(1, 1, 3), torch.ones(1, 1, 3))
    assert counts[0, -1] == 3 and expected_calibration_error(counts) == pytest.approx(1)
