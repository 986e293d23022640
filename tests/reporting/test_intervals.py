"""Bootstrap intervals against closed forms and brute force."""

import numpy as np
import pytest
import torch

from pos_hf.evaluation.metrics import class_iou
from pos_hf.reporting.intervals import (
    class_iou_intervals,
    mean_iou,
    mean_iou_interval,
    paired_difference,
    resample,
)


def random_areas(seed: int, images: int = 40, classes: int = 3, quality: float = 0.6) -> np.ndarray:
    random = np.random.default_rng(seed)
    labeled = random.integers(10, 100, (images, classes))
    return np.stack([(labeled * quality * random.random(labeled.shape)).astype(int), labeled, labeled], 1)


def test_iou_is_intersection_over_union_and_skips_absent_classes() -> None:
    areas = np.array([[3, 4, 0], [4, 4, 0], [4, 5, 0]])
    np.testing.assert_allclose(class_iou(torch.from_numpy(areas)), [3 / 5, 4 / 5, np.nan])
    assert mean_iou(areas) == pytest.approx(0.7)
    assert np.isnan(mean_iou(np.zeros((3, 2))))


def test_a_resampled_data_set_is_the_sum_of_images_drawn_with_replacement() -> None:
    one_hot = np.eye(7, dtype=int).reshape(7, 1, 7).repeat(3, 1)  # image i holds one pixel of class i
    draws = resample(one_hot)
    assert (draws.sum(-1) == 7).all()
    np.testing.assert_allclose(draws.mean((0, 1)), 1, atol=0.1)


def test_the_interval_of_equal_images_is_a_point() -> None:
    interval = mean_iou_interval(random_areas(0, images=1).repeat(20, 0))
    assert interval.low == pytest.approx(interval.value) == pytest.approx(interval.high)


def test_the_interval_has_the_width_that_the_spread_over_images_implies() -> None:
    """One class of fixed area makes IoU the mean over images, whose standard error is known."""
    random = np.random.default_rng(1)
    hits = random.integers(0, 101, 200)
    area = np.full(200, 100)
    areas = np.stack([hits, hits, area], 1)[..., None]
    interval = mean_iou_interval(areas)
    error = (hits / 100).std() / np.sqrt(200)
    assert interval.value == pytest.approx(hits.mean() / 100)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_pairing_removes_what_both_runs_share() -> None:
    """A run that is better by the same amount on every image differs with certainty, whatever the images."""
    areas = random_areas(2)
    better = areas.copy()
    better[:, 0] += 5
    difference = paired_difference(better, areas)
    alone = mean_iou_interval(areas)
    assert difference.low > 0
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)


def test_swapping_the_runs_changes_the_sign() -> None:
    first, second = random_areas(3), random_areas(4)
    forward, backward = paired_difference(first, second), paired_difference(second, first)
    np.testing.assert_allclose(forward, [-backward.value, -backward.high, -backward.low], atol=1e-12)


def test_the_interval_of_a_difference_of_nothing_contains_zero() -> None:
    excluded = sum(
        not (low <= 0 <= high)
        for _, low, high in (
            paired_difference(random_areas(2 * seed), random_areas(2 * seed + 1)) for seed in range(100)
        )
    )
    assert excluded <= 13  # 5 expected; 13 or fewer with probability 0.9995


def test_an_absent_class_has_no_interval() -> None:
    areas = random_areas(5)
    areas[..., 1] = 0
    assert [np.isnan(interval.low) for interval in class_iou_intervals(areas)] == [False, True, False]
