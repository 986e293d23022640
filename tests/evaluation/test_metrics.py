"""The confusion matrix and its scores, against a count pixel by pixel and the published algorithm written out
again."""

import math

import numpy as np
import pytest
import torch

from pos_hf.evaluation.metrics import ConfusionMatrix, areas, scores

from .published import published_mean_iou


def random_maps(seed: int, classes: int, *, stray: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps of several sizes in which the last class is absent and some pixels are ignored."""
    random = np.random.default_rng(seed)
    predictions, labels = [], []
    for _ in range(4):
        size = tuple(random.integers(1, 9, 2))
        predictions.append(random.integers(-2 if stray else 0, classes + 3 if stray else classes - 1, size))
        label = random.integers(0, classes - 1, size)
        label[random.random(size) < 0.2] = 255
        labels.append(label)
    labels[-1][:] = 255
    return predictions, labels


def counted(predictions: list[np.ndarray], labels: list[np.ndarray], classes: int) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    for prediction, label in zip(predictions, labels, strict=True):
        matrix.update(torch.from_numpy(prediction)[None], torch.from_numpy(label)[None])
    return matrix


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_a_loop_over_pixels(seed: int) -> None:
    predictions, labels = random_maps(seed, classes=5, stray=True)
    expected = np.zeros((6, 6), dtype=int)
    for prediction, label in zip(predictions, labels, strict=True):
        for p, y in zip(prediction.flat, label.flat, strict=True):
            if y != 255:
                expected[min(y, 5), p if 0 <= p < 5 else 5] += 1
    assert np.array_equal(counted(predictions, labels, 5).counts.numpy(), expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stray", [False, True])
def test_scores_equal_the_published_algorithm(seed: int, stray: bool) -> None:
    predictions, labels = random_maps(seed, classes=5, stray=stray)
    ours = scores(counted(predictions, labels, 5).counts, dict(enumerate("abcde")))
    for key, value in published_mean_iou(predictions, labels, 5).items():
        mine = list(ours[key].values()) if isinstance(ours[key], dict) else ours[key]
        np.testing.assert_allclose(mine, value, rtol=0, atol=1e-12, equal_nan=True)


def test_an_absent_class_is_skipped_or_counts_as_zero() -> None:
    ours = scores(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), {0: "a", 1: "b"})
    with_absent = scores(
        torch.tensor([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), {0: "a", 1: "b", 2: "c"}
    )
    expected = (3 / 4 + 4 / 5) / 2
    assert ours["mean_iou"] == ours["mean_iou_absent_zero"] == pytest.approx(expected)
    assert with_absent["mean_iou"] == pytest.approx(expected)
    assert with_absent["mean_iou_absent_zero"] == pytest.approx(expected * 2 / 3)
    assert math.isnan(with_absent["per_category_iou"]["c"])


def test_frequency_weighted_iou_weighs_by_labeled_pixels() -> None:
    ours = scores(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), {0: "a", 1: "b"})
    assert ours["frequency_weighted_iou"] == pytest.approx((4 * 3 / 4 + 4 * 4 / 5) / 8)


def test_nothing_labeled_scores_nan_instead_of_failing() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.zeros(2, 4, 4, dtype=torch.int64), torch.full((2, 4, 4), 255))
    matrix.update(torch.zeros(1, 0, 0, dtype=torch.int64), torch.zeros(1, 0, 0, dtype=torch.int64))
    assert matrix.counts.sum() == 0
    assert math.isnan(scores(matrix.counts, dict(enumerate("abc")))["mean_iou"])


def test_update_returns_the_counts_of_each_image() -> None:
    predictions, labels = torch.randint(0, 4, (3, 6, 5)), torch.randint(0, 4, (3, 6, 5))
    batch = ConfusionMatrix(4)
    per_image = batch.update(predictions, labels)
    for i in range(3):
        alone = ConfusionMatrix(4)
        alone.update(predictions[i : i + 1], labels[i : i + 1])
        assert torch.equal(per_image[i], alone.counts)
    assert torch.equal(per_image.sum(0), batch.counts)


def test_areas_are_intersection_predicted_and_labeled_pixels() -> None:
    predictions, labels = torch.tensor([[[0, 1, 1, 7]]]), torch.tensor([[[0, 0, 1, 1]]])
    assert areas(ConfusionMatrix(2).update(predictions, labels))[0].tolist() == [[1, 1], [1, 2], [2, 2]]
