"""The documented algorithm of the published `mean_iou`, written out again as the truth of our tests."""

import numpy as np


def published_mean_iou(predictions: list[np.ndarray], labels: list[np.ndarray], classes: int) -> dict:
    """Three histograms an image over [0, C-1], summed in float64; absent classes are NaN and skipped."""
    totals = np.zeros((3, classes))
    for prediction, label in zip(predictions, labels, strict=True):
        keep = label != 255
        prediction, label = prediction[keep], label[keep]
        for row, values in enumerate((prediction[prediction == label], prediction, label)):
            totals[row] += np.histogram(values, bins=classes, range=(0, classes - 1))[0]
    intersection, predicted, labeled = totals
    with np.errstate(invalid="ignore"):
        iou, accuracy = intersection / (predicted + labeled - intersection), intersection / labeled
    return {
        "mean_iou": np.nanmean(iou),
        "mean_accuracy": np.nanmean(accuracy),
        "overall_accuracy": intersection.sum() / labeled.sum(),
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }
