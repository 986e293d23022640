"""Confidence rules: which pseudo-labeled pixels count, and how much. State lives in buffers."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ConfidenceRule(nn.Module, ABC):
    """Probabilities -> pixel weights, from statistics that move with training."""

    @abstractmethod
    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        """Weight of each pixel's pseudo-label, float [N, H, W] in [0, 1]."""


class FixedThreshold(ConfidenceRule):
    """A pixel counts when its confidence is at least `threshold` (Eq. 2; published code compares with >=)."""

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        self.threshold = threshold

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        confidence_NHW = probabilities_NCHW.amax(1)
        return (confidence_NHW >= self.threshold).to(confidence_NHW.dtype)
