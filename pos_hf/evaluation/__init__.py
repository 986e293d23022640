"""Predicting and scoring whole images, the same way in training, `pos-hf evaluate` and `pos-hf predict`."""

from pathlib import Path

from pos_hf.evaluation.evaluator import (
    evaluate_images,
    evaluate_models,
    predict_confident,
    predict_images,
    predict_probabilities,
)
from pos_hf.evaluation.inference import Inference, class_probabilities, label_names, palette_of
from pos_hf.evaluation.loading import load_for_inference
from pos_hf.evaluation.metrics import ConfusionMatrix, scores
from pos_hf.evaluation.pseudo_labels import (
    PseudoLabeler,
    collapse_alarm,
    keep_confident,
    labeler_of,
    logged_quality,
    pseudo_label_quality,
)
from pos_hf.evaluation.results import Evaluation, Prediction, protocol

MEAN_IOU = str(Path(__file__).parent / "mean_iou")
"""What `evaluate.load` takes for our `mean_iou` metric."""

__all__ = [
    "MEAN_IOU",
    "ConfusionMatrix",
    "Evaluation",
    "Inference",
    "Prediction",
    "PseudoLabeler",
    "class_probabilities",
    "collapse_alarm",
    "evaluate_images",
    "evaluate_models",
    "keep_confident",
    "label_names",
    "labeler_of",
    "load_for_inference",
    "logged_quality",
    "palette_of",
    "predict_confident",
    "predict_images",
    "predict_probabilities",
    "protocol",
    "pseudo_label_quality",
    "scores",
]
