"""Boundary IoU against a search of every pixel's neighbourhood."""

import pytest
import torch

from pos_hf.evaluation import boundaries
from pos_hf.evaluation.boundaries import WIDTH, boundary_areas
from pos_hf.evaluation.metrics import class_iou


def band(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Mask pixels at most `radius` rows and columns from a pixel outside the mask or the image."""
    height, width = mask.shape
    result = torch.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            rows, columns = (range(i - radius, i + radius + 1) for i in (y, x))
            square = [(r, c) for r in rows for c in columns]
            inside = all(r in range(height) and c in range(width) and mask[r, c] for r, c in square)
            result[y, x] = mask[y, x] and not inside
    return result


@pytest.mark.parametrize("size", [(12, 15), (32, 40)])
@pytest.mark.parametrize("sums_bytes", [boundaries.SUMS_BYTES, 1])
def test_areas_equal_a_search_pixel_by_pixel(monkeypatch, size: tuple[int, int], sums_bytes: int) -> None:
    monkeypatch.setattr(boundaries, "SUMS_BYTES", sums_bytes)
    coarse = torch.randint(0, 3, (2, 2, 4, 5), dtype=torch.uint8)
    maps = coarse.repeat_interleave(size[0] // 4, 2).repeat_interleave(size[1] // 5, 3)
    predictions, labels = maps
    labels[:, :2] = 255
    radius = max(1, round(WIDTH * (size[0] ** 2 + size[1] ** 2) ** 0.5))
    expected = torch.zeros(3, 4, dtype=torch.int64)
    for prediction, label in zip(predictions, labels, strict=True):
        prediction = torch.where(label == 255, 255, prediction)
        for i in range(3):
            predicted, labeled = band(prediction == i, radius), band(label == i, radius)
            expected[:, i] += torch.stack([predicted & labeled, predicted, labeled]).sum((-2, -1))
    assert torch.equal(boundary_areas(predictions, labels, 4), expected)


def test_a_perfect_prediction_has_boundary_iou_one() -> None:
    labels = torch.zeros(1, 40, 40, dtype=torch.int64)
    labels[:, 10:30, 10:30] = 1
    assert class_iou(boundary_areas(labels, labels, 2)).tolist() == [1, 1]


def test_a_shifted_border_costs_more_boundary_iou_than_iou() -> None:
    labels, predictions = torch.zeros(2, 1, 64, 64, dtype=torch.int64)
    labels[:, :, :32], predictions[:, :, :34] = 1, 1
    boundary = class_iou(boundary_areas(predictions, labels, 2))
    assert (boundary < torch.tensor([30 / 32, 32 / 34])).all()
