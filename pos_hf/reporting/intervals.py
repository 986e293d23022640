"""Bootstrap over test images: intervals of one run's IoU and of the difference between two runs. Seeds are
another source of spread that these intervals do not contain."""

from typing import NamedTuple

import numpy as np
import torch

from pos_hf.evaluation.metrics import class_iou

RESAMPLES = 2000


class Interval(NamedTuple):
    """A measured value and its 95 % percentile interval."""

    value: float
    low: float
    high: float


def mean_iou(areas: np.ndarray) -> np.ndarray:
    """Mean over the classes that are present, [...] from [..., 3, C]; NaN where none is."""
    iou = _class_iou(areas)
    present = ~np.isnan(iou)
    count = present.sum(-1)
    total = np.where(present, iou, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def worst_images(image_areas: np.ndarray, count: int = 4) -> list[int]:
    """Positions of the images of lowest own mIoU, the lowest first; wholly ignored images left out.

    Args:
        image_areas: Counts of each image, int64 [N, 3, C].
        count: How many at most.
    """
    own = mean_iou(image_areas)
    return np.argsort(own, kind="stable")[: min(count, int((~np.isnan(own)).sum()))].tolist()


def resample(image_areas: np.ndarray, seed: int = 0) -> np.ndarray:
    """Pixel counts of `RESAMPLES` data sets drawn with replacement from the images.

    Args:
        image_areas: Counts of each image, int64 [N, 3, C].
        seed: The same seed draws the same images, which pairs two runs on the same images.

    Returns:
        float64 [RESAMPLES, 3, C].
    """
    num_images = len(image_areas)
    times_drawn = np.random.default_rng(seed).multinomial(
        num_images, np.full(num_images, 1 / num_images), RESAMPLES
    )
    return np.tensordot(times_drawn.astype(float), image_areas.astype(float), 1)


def mean_iou_interval(image_areas: np.ndarray) -> Interval:
    """mIoU over all images, and where it would lie for other images of the same kind.

    Args:
        image_areas: Counts of each image, int64 [N, 3, C].
    """
    return _interval(mean_iou(image_areas.sum(0)), mean_iou(resample(image_areas)))


def class_iou_intervals(image_areas: np.ndarray) -> list[Interval]:
    """The same for each class; NaN for a class that is absent.

    Args:
        image_areas: Counts of each image, int64 [N, 3, C].
    """
    values, draws = _class_iou(image_areas.sum(0)), _class_iou(resample(image_areas))
    return [_interval(value, draw) for value, draw in zip(values, draws.T, strict=True)]


def paired_difference(image_areas: np.ndarray, baseline_areas: np.ndarray) -> Interval:
    """mIoU of a run minus the baseline's, resampling both on the same images (paired bootstrap).

    Args:
        image_areas: Counts of the run, int64 [N, 3, C].
        baseline_areas: Counts of the baseline on the same images in the same order, int64 [N, 3, C].
    """
    difference = mean_iou(image_areas.sum(0)) - mean_iou(baseline_areas.sum(0))
    return _interval(difference, mean_iou(resample(image_areas)) - mean_iou(resample(baseline_areas)))


def _interval(value: float | np.ndarray, draws: np.ndarray) -> Interval:
    drawn = draws[~np.isnan(draws)]  # a class may be absent from some of the drawn data sets
    if len(drawn) == 0:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _class_iou(areas: np.ndarray) -> np.ndarray:
    return class_iou(torch.from_numpy(areas)).numpy()
