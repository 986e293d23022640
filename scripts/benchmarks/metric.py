"""Milliseconds an image of 512 x 512 pixels and 21 classes: our counts beside the `evaluate` library's
compute() path.

The published `mean_iou` script lives on the Hub, so its documented algorithm (three histograms an image, maps
declared as `datasets.Image`) is written out here and run through `evaluate.Metric.compute`. Sides are
interleaved. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import datasets
import evaluate
import numpy as np
import torch

from pos_hf.evaluation import MEAN_IOU, ConfusionMatrix, scores

CLASSES, SIDE = 21, 512


class HistogramMeanIoU(evaluate.Metric):
    """The published algorithm behind the library's own features and Arrow buffer."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, *, predictions, references, num_labels, ignore_index):
        totals = np.zeros((3, num_labels))
        for prediction, label in zip(predictions, references, strict=True):
            prediction, label = np.array(prediction), np.array(label)
            keep = label != ignore_index
            prediction, label = prediction[keep], label[keep]
            for row, values in enumerate((prediction[prediction == label], prediction, label)):
                totals[row] += np.histogram(values, bins=num_labels, range=(0, num_labels - 1))[0]
        return {"mean_iou": np.nanmean(totals[0] / (totals[1] + totals[2] - totals[0]))}


def random_maps(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions wrong in a fifth of the pixels, and labels in blocks with ignored pixels, uint8."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, CLASSES, (images, SIDE // 16, SIDE // 16))
    labels = blocks.repeat(16, 1).repeat(16, 2).astype(np.uint8)
    predictions = np.where(
        random.random(labels.shape) < 0.2, random.integers(0, CLASSES, labels.shape), labels
    )
    predictions = predictions.astype(np.uint8)
    labels[random.random(labels.shape) < 0.05] = 255
    return predictions, labels


def measure(side: Callable[[], float], images: int) -> float:
    start = time.perf_counter()
    side()
    return (time.perf_counter() - start) / images * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    predictions, labels = random_maps(args.images)
    device_predictions = torch.from_numpy(predictions).to(args.device, torch.int64)
    device_labels = torch.from_numpy(labels).to(args.device, torch.int64)
    id2label = dict(enumerate(map(str, range(CLASSES))))

    with tempfile.TemporaryDirectory() as cache:
        theirs, module = HistogramMeanIoU(cache_dir=cache), evaluate.load(MEAN_IOU, cache_dir=cache)
        arguments = {"num_labels": CLASSES, "ignore_index": 255}

        def counts() -> float:
            matrix = ConfusionMatrix(CLASSES, device=args.device)
            for i in range(0, args.images, 4):
                matrix.update(device_predictions[i : i + 4], device_labels[i : i + 4])
            return scores(matrix.counts, id2label)["mean_iou"]

        def run(metric: evaluate.Metric) -> float:
            return metric.compute(predictions=list(predictions), references=list(labels), **arguments)[
                "mean_iou"
            ]

        sides = {
            "evaluate_compute": lambda: run(theirs),
            "confusion_matrix": counts,
            "metric_module": lambda: run(module),
        }
        values = {name: side() for name, side in sides.items()}  # warm-up; all must agree
        assert np.ptp(list(values.values())) < 1e-12, values
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.repeats):
            for name, side in sides.items():
                times[name].append(measure(side, args.images))

    medians = {name: statistics.median(samples) for name, samples in times.items()}
    for name, samples in times.items():
        print(f"{name:<18} {medians[name]:8.2f} ms an image ({min(samples):.2f} to {max(samples):.2f})")
    result = {
        "milliseconds_an_image": {name: round(value, 3) for name, value in medians.items()},
        "range": {name: [round(min(samples), 3), round(max(samples), 3)] for name, samples in times.items()},
        "ratio_confusion_matrix": round(medians["evaluate_compute"] / medians["confusion_matrix"], 1),
        "ratio_metric_module": round(medians["evaluate_compute"] / medians["metric_module"], 1),
        "device": args.device,
        "threads": args.threads,
        "images": args.images,
        "repeats": args.repeats,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
