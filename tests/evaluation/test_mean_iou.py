"""The metric module of the `evaluate` library."""

import evaluate
import numpy as np
import pytest

from pos_hf.evaluation import MEAN_IOU

from .published import published_mean_iou


@pytest.fixture(scope="module")
def metric(tmp_path_factory) -> evaluate.Metric:
    return evaluate.load(MEAN_IOU, cache_dir=str(tmp_path_factory.mktemp("cache")))


def maps(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    predictions = [random.integers(0, 5, (9, 7)).astype(np.uint8) for _ in range(3)]
    labels = [np.where(random.random((9, 7)) < 0.1, 255, random.integers(0, 4, (9, 7))) for _ in range(3)]
    return predictions, labels


def test_keys_and_numbers_are_the_published_ones(metric) -> None:
    predictions, labels = maps(0)
    ours = metric.compute(predictions=predictions, references=labels, num_labels=6, ignore_index=255)
    expected = published_mean_iou(predictions, labels, 6)
    assert set(ours) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-12)


def test_maps_can_be_added_one_by_one_or_in_batches_and_are_forgotten(metric) -> None:
    predictions, labels = maps(1)
    metric.add(prediction=predictions[0], reference=labels[0])
    metric.add_batch(predictions=predictions[1:], references=labels[1:])
    added = metric.compute(num_labels=6, ignore_index=255)
    at_once = metric.compute(predictions=predictions, references=labels, num_labels=6, ignore_index=255)
    np.testing.assert_array_equal(added["per_category_iou"], at_once["per_category_iou"])


def test_labels_can_be_mapped_reduced_and_absent_classes_filled(metric) -> None:
    prediction, label = np.array([[0, 1, 1]]), np.array([[1, 2, 0]], dtype=np.uint8)
    reduced = metric.compute(
        predictions=[prediction],
        references=[label],
        num_labels=3,
        ignore_index=255,
        reduce_labels=True,
        nan_to_num=-1,
    )
    assert reduced["per_category_iou"].tolist() == [1, 1, -1]
    mapped = metric.compute(
        predictions=[prediction],
        references=[label],
        num_labels=3,
        ignore_index=255,
        label_map={1: 0, 2: 1, 0: 2},
    )
    assert mapped["per_category_iou"].tolist() == [1, 0.5, 0]
    assert label.tolist() == [[1, 2, 0]]


def test_scores_of_nothing_are_filled_too(metric) -> None:
    """As published: `nan_to_num` holds for every number."""
    maps = {"predictions": [np.zeros((2, 2), int)], "references": [np.full((2, 2), 255)]}
    filled = metric.compute(**maps, num_labels=2, ignore_index=255, nan_to_num=-1)
    assert [filled[key] for key in ("mean_iou", "mean_accuracy", "overall_accuracy")] == [-1, -1, -1]
    assert filled["per_category_iou"].tolist() == filled["per_category_accuracy"].tolist() == [-1, -1]


def test_it_loads_offline_from_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    maps = [[[0, 1]]]
    loaded = evaluate.load(MEAN_IOU, cache_dir=str(tmp_path))
    assert loaded.compute(predictions=maps, references=maps, num_labels=2, ignore_index=255)["mean_iou"] == 1
