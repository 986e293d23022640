"""Confidence rules: which pseudo-labeled pixels count, and how much. No loss is made here.

| rule | weight of a pixel | source |
|---|---|---|
| `FixedThreshold` | 1 if confidence >= threshold | Eq. 2; UniMatch's published code |
| `Percentile` | 1 if entropy < a percentile of the batch's entropies | U2PL, CVPR 2022, Eq. 4 and its code |
| `FreeMatch` | 1 if confidence >= global x class threshold | FreeMatch, ICLR 2023, Eq. 5-8 |
| `SoftMatch` | truncated Gaussian of the confidence | SoftMatch, ICLR 2023, Eq. 5-7 |
| `DAW` | 1 if correct is likelier than wrong at this confidence | DAW, NeurIPS 2023 |
| `CorrMatch` | 1 if confidence >= EMA of the mean class maximum | CorrMatch, CVPR 2024, relaxed threshold |
| `CWBASS` | 1 if confidence >= threshold, or >= a class's floor | CW-BASS v2, arXiv 2608.12773 |
| `CoVar` | Gaussian of confidence and residual variance | CoVar, arXiv 2601.11670 |

Statistics count the pixels that are not padding, over all ranks, in float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pos_hf.methods.losses import sum_over_ranks
from pos_hf.named import Decay, Share, Spec, build
from pos_hf.values import IGNORE_INDEX

Threshold = Annotated[float | Spec, "[0, 1]"]

TINY = 1e-30
"""Keeps a variance of 0 from dividing 0 by 0."""


class RunningState(nn.Module):
    """float64 buffers that get their shape (the class count) from the first batch or from a checkpoint."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def start(self, name: str, value: Tensor) -> None:
        """Give the buffer its first value, unless it has one."""
        if self.get_buffer(name).numel() == 0:
            setattr(self, name, value.to(torch.float64, copy=True))

    def average(self, name: str, value: Tensor, decay: float) -> None:
        """buffer <- decay * buffer + (1 - decay) * value."""
        self.get_buffer(name).lerp_(value.double(), 1 - decay)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class ConfidenceRule(RunningState, ABC):
    """Probabilities -> weights of the pixels' pseudo-labels."""

    memory: float = 0.0
    """Steps that averages from 1/C, as published, take to forget their start, which keeps most pixels."""
    needs_held_out: bool = False
    """Shall see labels that training does not learn from, at each evaluation."""

    def observe_labeled(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> None:
        """Update from the student's prediction of the labeled images; most rules ignore them."""

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        """Update once a step from the unlabeled images; `progress` is the share of steps done."""

    def observe_held_out(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Start anew from the teacher's probabilities [N, C, H, W] of all held-out images and their labels
        [N, H, W], the same on every rank."""

    @abstractmethod
    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        """Weight of each pixel, float [N, H, W] in [0, 1]."""


class FixedThreshold(ConfidenceRule):
    """A pixel counts when its confidence is at least `threshold`."""

    def __init__(self, threshold: Share = 0.95) -> None:
        super().__init__()
        self.threshold = threshold

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        return (probabilities_NCHW.amax(1) >= self.threshold).to(probabilities_NCHW.dtype)


class Percentile(ConfidenceRule):
    """A pixel counts when its entropy is below a quantile of the batch's: `start` at first, 1 at the end."""

    threshold: Tensor

    def __init__(self, start: Share = 0.8) -> None:
        super().__init__("threshold")
        self.start_share = start

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        kept = self.start_share + (1 - self.start_share) * progress
        entropy_NHW = torch.where(valid_NHW, entropy(probabilities_NCHW), torch.nan)
        self.threshold = entropy_NHW.nanquantile(kept).double()

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        return (entropy(probabilities_NCHW) < self.threshold).to(probabilities_NCHW.dtype)


class FreeMatch(ConfidenceRule):
    """EMA of the mean confidence, modulated by each class's EMA of its mean probability."""

    threshold: Tensor
    class_probability: Tensor

    def __init__(self, decay: Decay = 0.999) -> None:
        super().__init__("threshold", "class_probability")
        self.decay = decay
        self.memory = decay / (1 - decay)

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        uniform = uniform_classes(probabilities_NCHW)
        self.start("threshold", uniform[0])
        self.start("class_probability", uniform)
        _, mean, _ = _moments(probabilities_NCHW.amax(1), valid_NHW)
        self.average("threshold", mean, self.decay)
        self.average("class_probability", class_mean(probabilities_NCHW, valid_NHW), self.decay)

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        confidence_NHW, labels_NHW = probabilities_NCHW.max(1)
        thresholds_C = self.threshold * self.class_probability / self.class_probability.amax()
        return (confidence_NHW >= thresholds_C[labels_NHW]).to(confidence_NHW.dtype)


class SoftMatch(ConfidenceRule):
    """exp(-num_sigmas^2 (confidence - mean)^2 / (2 variance)) below the mean, 1 above, with EMAs of both."""

    mean: Tensor
    variance: Tensor

    def __init__(self, decay: Decay = 0.999, num_sigmas: Annotated[float, "(0, inf)"] = 2.0) -> None:
        super().__init__("mean", "variance")
        self.decay = decay
        self.memory = decay / (1 - decay)
        self.num_sigmas = num_sigmas

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        self.start("mean", uniform_classes(probabilities_NCHW)[0])
        self.start("variance", torch.ones_like(self.mean))
        count, mean, variance = _moments(probabilities_NCHW.amax(1), valid_NHW)
        self.average("mean", mean, self.decay)
        self.average("variance", variance * count / (count - 1), self.decay)

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        below_NHW = (probabilities_NCHW.amax(1) - self.mean).clamp(max=0)
        return torch.exp(-below_NHW.square() * self.num_sigmas**2 / (2 * self.variance))


class DAW(ConfidenceRule):
    """Threshold where two Gaussians cross: the confidences of the correct and of the wrong labeled pixels.

    EMA of both means and variances; the threshold is clamped to [1/C, 1]. The starting values (means 1 and
    1/C, variances 1) are ours.
    """

    means: Tensor
    variances: Tensor
    lowest: Tensor

    def __init__(self, decay: Decay = 0.99) -> None:
        super().__init__("means", "variances", "lowest")
        self.decay = decay
        self.memory = decay / (1 - decay)

    def observe_labeled(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> None:
        probabilities_NCHW = logits_NCHW.softmax(1)
        lowest = uniform_classes(probabilities_NCHW)[0]
        self.start("lowest", lowest)
        self.start("means", torch.stack([torch.ones_like(lowest), lowest]))
        self.start("variances", torch.ones_like(self.means))
        confidence_NHW, predictions_NHW = probabilities_NCHW.max(1)
        labeled = labels_NHW != IGNORE_INDEX
        correct = predictions_NHW == labels_NHW
        for group, mask in enumerate([labeled & correct, labeled & ~correct]):
            count, mean, variance = _moments(confidence_NHW, mask)
            # a batch without a wrong (or without a correct) pixel says nothing about that group
            self.means[group].lerp_(torch.where(count > 0, mean, self.means[group]), 1 - self.decay)
            self.variances[group].lerp_(
                torch.where(count > 0, variance, self.variances[group]), 1 - self.decay
            )

    def threshold(self) -> Tensor:
        """The confidence above which a pixel is likelier to be correct than wrong, 0-d."""
        (mean_1, mean_0), (variance_1, variance_0) = self.means, self.variances
        # log N(x; correct) - log N(x; wrong) = a x^2 + b x + c; the crossing is the root with positive slope
        a = (1 / variance_0 - 1 / variance_1) / 2
        b = mean_1 / variance_1 - mean_0 / variance_0
        c = (mean_0**2 / variance_0 - mean_1**2 / variance_1 + torch.log(variance_0 / variance_1)) / 2
        slope = (b**2 - 4 * a * c).sqrt()
        crossing = torch.where(b > 0, -2 * c / (b + slope), (slope - b) / (2 * a))
        return crossing.maximum(self.lowest).clamp(max=1)

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        return (probabilities_NCHW.amax(1) >= self.threshold()).to(probabilities_NCHW.dtype)


class CorrMatch(ConfidenceRule):
    """Threshold: EMA, from `start`, of the mean over the predicted classes of their highest confidence."""

    threshold: Tensor

    def __init__(self, start: Share = 0.85, decay: Decay = 0.999) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(start, dtype=torch.float64))
        self.decay = decay

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        confidence_NHW, labels_NHW = probabilities_NCHW.max(1)
        confidence_NHW = torch.where(valid_NHW, confidence_NHW, 0.0)
        highest_C = probabilities_NCHW.new_zeros(probabilities_NCHW.shape[1])
        highest_C.scatter_reduce_(0, labels_NHW.flatten(), confidence_NHW.flatten(), "amax")
        if _distributed():
            dist.all_reduce(highest_C, dist.ReduceOp.MAX)
        self.average("threshold", highest_C.sum() / (highest_C > 0).sum(), self.decay)

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        return (probabilities_NCHW.amax(1) >= self.threshold).to(probabilities_NCHW.dtype)


class CWBASS(ConfidenceRule):
    """The strict threshold while it is as right as it is confident on held-out labels, else a class's floor.

    The gate is the paper's: pi = Pr[correct | confidence >= threshold] on held-out labels; strict filtering
    if pi >= threshold. The floor of class k is `floor_share` times the mean confidence, times the mean
    confidence of the pixels predicted as k over the largest such mean, in [`lowest`, `threshold`]; means are
    EMAs. Ours: the gate is measured at each evaluation and closed before the first, the EMAs start from the
    first batch, and of the published threshold the part from per-class noise bounds is left out.
    """

    needs_held_out = True
    confidence: Tensor
    class_confidence: Tensor
    held_out: Tensor
    """Held-out pixels at or above the threshold, and those of them that are right."""

    def __init__(
        self, threshold: Share = 0.95, floor_share: Share = 0.95, lowest: Share = 0.3, decay: Decay = 0.99
    ) -> None:
        super().__init__("confidence", "class_confidence")
        self.register_buffer("held_out", torch.zeros(2, dtype=torch.float64))
        self.threshold, self.floor_share, self.lowest = threshold, floor_share, lowest
        self.decay = decay

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        confidence_NHW, labels_NHW = probabilities_NCHW.max(1)
        kept = torch.where(valid_NHW, confidence_NHW, 0.0).flatten().double()
        sums_2C = torch.zeros(2, probabilities_NCHW.shape[1], dtype=torch.float64, device=kept.device)
        sums_2C[0].scatter_add_(0, labels_NHW.flatten(), kept)
        sums_2C[1].scatter_add_(0, labels_NHW.flatten(), valid_NHW.flatten().double())
        total_C, count_C = sum_over_ranks(sums_2C)
        mean = total_C.sum() / count_C.sum()
        self.start("confidence", mean)
        self.start("class_confidence", mean.expand_as(total_C))
        self.average("confidence", mean, self.decay)
        # a class that is not predicted says nothing about itself
        means_C = torch.where(count_C > 0, total_C / count_C, self.class_confidence)
        self.average("class_confidence", means_C, self.decay)

    def observe_held_out(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.held_out.zero_()
        for probabilities_NCHW, labels_NHW in batches:
            confidence_NHW, predictions_NHW = probabilities_NCHW.max(1)
            kept = (confidence_NHW >= self.threshold) & (labels_NHW != IGNORE_INDEX)
            self.held_out += torch.stack([kept.sum(), (kept & (predictions_NHW == labels_NHW)).sum()])

    def thresholds(self) -> Tensor:
        """The threshold of each class, [C] float64."""
        floor_C = self.floor_share * self.confidence * self.class_confidence / self.class_confidence.amax()
        kept, right = self.held_out
        is_strict = (kept > 0) & (right >= self.threshold * kept)
        return torch.where(is_strict, self.threshold, floor_C.clamp(self.lowest, self.threshold))

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        confidence_NHW, labels_NHW = probabilities_NCHW.max(1)
        return (confidence_NHW >= self.thresholds()[labels_NHW]).to(confidence_NHW.dtype)


class CoVar(ConfidenceRule):
    """Gaussian weights around the pixels with a high confidence m and a low variance of the other classes.

    The residual variance enters as v = (C-1)^2 variance / (2 (1-m)), the second-order term of the
    cross-entropy to a target that spreads 1 - m evenly over the other classes, so that it weighs more the
    higher the confidence. The batch falls into two clusters by the first singular vector of (m, v); of two
    standardised columns that is (1, -1) / sqrt 2, so a pixel is reliable where its standardised m exceeds
    its standardised v. The weight is exp(-(dm^2 / var m + dv^2 / var v) / 2), dm below the reliable cluster's
    mean m and dv above its mean v. The criterion, the relaxation and the Gaussian of a cluster are the
    paper's; written from its abstract: the scaling of v, the standardisation, and one Gaussian, truncated at
    the means, for both clusters are ours.
    """

    means: Tensor
    variances: Tensor

    def __init__(self) -> None:
        super().__init__("means", "variances")

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor, progress: float) -> None:
        pair = _confidence_and_variance(probabilities_NCHW)
        standardised = []
        for values_NHW in pair:
            _, mean, variance = _moments(values_NHW, valid_NHW)
            standardised.append((values_NHW - mean) / variance.clamp(min=TINY).sqrt())
        reliable_NHW = valid_NHW & (standardised[0] >= standardised[1])
        moments = torch.stack([torch.stack(_moments(values_NHW, reliable_NHW)) for values_NHW in pair])
        self.means, self.variances = moments[:, 1].clone(), moments[:, 2].clamp(min=TINY)

    def weights(self, probabilities_NCHW: Tensor) -> Tensor:
        confidence_NHW, variance_NHW = _confidence_and_variance(probabilities_NCHW)
        below_NHW = (confidence_NHW - self.means[0]).clamp(max=0)
        above_NHW = (variance_NHW - self.means[1]).clamp(min=0)
        distance_NHW = below_NHW.square() / self.variances[0] + above_NHW.square() / self.variances[1]
        return torch.exp(-distance_NHW / 2)


RULES: dict[str, type[ConfidenceRule]] = {
    "fixed": FixedThreshold,
    "percentile": Percentile,
    "freematch": FreeMatch,
    "softmatch": SoftMatch,
    "daw": DAW,
    "corrmatch": CorrMatch,
    "cw_bass": CWBASS,
    "covar": CoVar,
}


def get_confidence_rule(threshold: Threshold) -> ConfidenceRule:
    """A fixed threshold, or a rule by name ("freematch") or by name and options."""
    if isinstance(threshold, int | float):
        return build("threshold rule", RULES, {"name": "fixed", "threshold": threshold})
    return build("threshold rule", RULES, threshold)


def _distributed() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def _moments(values_NHW: Tensor, mask_NHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and (biased) variance of the masked values, 0-d float64; NaN where the count is 0."""
    kept = torch.where(mask_NHW, values_NHW, 0.0).double()
    count, total, squares = sum_over_ranks(
        torch.stack([mask_NHW.sum().double(), kept.sum(), kept.square().sum()])
    )
    mean = total / count
    return count, mean, squares / count - mean**2


def class_mean(probabilities_NCHW: Tensor, mask_NHW: Tensor) -> Tensor:
    """Mean probability of each class over the masked pixels, [C] float64."""
    totals_C = torch.where(mask_NHW[:, None], probabilities_NCHW, 0.0).sum((0, 2, 3), dtype=torch.float64)
    sums = sum_over_ranks(torch.cat([totals_C, mask_NHW.sum()[None].double()]))
    return sums[:-1] / sums[-1]


def uniform_classes(probabilities_NCHW: Tensor) -> Tensor:
    num_classes = probabilities_NCHW.shape[1]
    return torch.full((num_classes,), 1 / num_classes, dtype=torch.float64, device=probabilities_NCHW.device)


def entropy(probabilities_NCHW: Tensor) -> Tensor:
    """Entropy of each pixel in nats, [N, H, W]."""
    return torch.special.entr(probabilities_NCHW).sum(1)


def _confidence_and_variance(probabilities_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Highest probability of each pixel and the scaled variance of the others (`CoVar`), [N, H, W]."""
    confidence_NHW, labels_NHW = probabilities_NCHW.max(1)
    labels_N1HW, num_others = labels_NHW[:, None], probabilities_NCHW.shape[1] - 1
    rest_NHW = probabilities_NCHW.scatter(1, labels_N1HW, 0.0).sum(1)
    deviations_NCHW = (probabilities_NCHW - rest_NHW[:, None] / num_others).square()
    variance_NHW = deviations_NCHW.scatter(1, labels_N1HW, 0.0).sum(1) / num_others
    tiny = torch.finfo(rest_NHW.dtype).tiny
    return confidence_NHW, num_others**2 * variance_NHW / (2 * rest_NHW).clamp(min=tiny)
