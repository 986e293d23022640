"""Predicting and scoring whole images, the same way in training, `pos-hf evaluate` and `pos-hf predict`."""

from pos_hf.evaluation.evaluator import Evaluation, evaluate_images, evaluate_model, predict_images, protocol
from pos_hf.evaluation.inference import Inference, class_probabilities, label_names
from pos_hf.evaluation.loading import load_for_inference
from pos_hf.evaluation.metrics import ConfusionMatrix, scores

__all__ = [
    "ConfusionMatrix",
    "Evaluation",
    "Inference",
    "class_probabilities",
    "evaluate_images",
    "evaluate_model",
    "label_names",
    "load_for_inference",
    "predict_images",
    "protocol",
    "scores",
]
