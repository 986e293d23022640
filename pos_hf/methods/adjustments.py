"""Corrections of what the classes' shares do to pseudo-labels. Which of them count is in confidence.py."""

import torch
from torch import Tensor

from pos_hf.methods.confidence import RunningState, class_mean, uniform_classes
from pos_hf.methods.losses import sum_over_ranks
from pos_hf.named import Decay
from pos_hf.values import IGNORE_INDEX


class DistributionAlignment(RunningState):
    """Multiply probabilities by labeled over unlabeled class shares and renormalise (ReMixMatch; DAW).

    Both shares are EMAs of the models' mean probabilities, from 1/C.
    """

    labeled_share: Tensor
    unlabeled_share: Tensor

    def __init__(self, decay: Decay = 0.999) -> None:
        super().__init__("labeled_share", "unlabeled_share")
        self.decay = decay

    def observe_labeled(self, logits_NCHW: Tensor, labels_NHW: Tensor) -> None:
        """Update the labeled share from the student's logits, over the labeled pixels."""
        probabilities_NCHW = logits_NCHW.softmax(1)
        self.start("labeled_share", uniform_classes(probabilities_NCHW))
        share = class_mean(probabilities_NCHW, labels_NHW != IGNORE_INDEX)
        # a batch without a labeled pixel has no share
        self.average("labeled_share", torch.where(share.isnan(), self.labeled_share, share), self.decay)

    def observe(self, probabilities_NCHW: Tensor, valid_NHW: Tensor) -> None:
        """Update the unlabeled share."""
        self.start("unlabeled_share", uniform_classes(probabilities_NCHW))
        self.average("unlabeled_share", class_mean(probabilities_NCHW, valid_NHW), self.decay)

    def align(self, probabilities_NCHW: Tensor) -> Tensor:
        """The aligned probabilities [N, C, H, W]."""
        ratio_C = (self.labeled_share + 1e-6) / (self.unlabeled_share + 1e-6)
        aligned_NCHW = probabilities_NCHW * ratio_C[:, None, None].to(probabilities_NCHW.dtype)
        return aligned_NCHW / aligned_NCHW.sum(1, keepdim=True)


class LogitAdjustment(RunningState):
    """Add the log of each class's kept share to the logits of L_u, so that rare classes are not unlearned.

    A confidence rule keeps k_c of the pixels of class c, often none of a rare one. Cross-entropy on what is
    kept learns p(y | x, kept), proportional to p(y | x) k_y: the frequent classes alone. With log k_c added
    to the logits it learns p(y | x) (Menon et al., ICLR 2021; Ren et al., NeurIPS 2020, for label shift), and
    a class of which no pixel is kept gets no gradient from L_u. k_c is an EMA over steps of the pixels kept
    as c, over one of the pixels of c that the teacher's probabilities expect. Its use for what a confidence
    rule selects is ours.
    """

    kept: Tensor
    expected: Tensor

    def __init__(self, decay: Decay = 0.99) -> None:
        super().__init__("kept", "expected")
        self.decay = decay

    def observe(
        self, probabilities_NCHW: Tensor, labels_NHW: Tensor, weights_NHW: Tensor, valid_NHW: Tensor
    ) -> None:
        """Update once a step from the unlabeled images; weights are 0 on padding."""
        expected_C = torch.where(valid_NHW[:, None], probabilities_NCHW, 0.0).sum(
            (0, 2, 3), dtype=torch.float64
        )
        kept_C = torch.zeros_like(expected_C)
        kept_C.scatter_add_(0, labels_NHW.flatten(), weights_NHW.flatten().double())
        kept_C, expected_C = sum_over_ranks(torch.stack([kept_C, expected_C]))
        self.start("kept", kept_C)
        self.start("expected", expected_C)
        self.average("kept", kept_C, self.decay)
        self.average("expected", expected_C, self.decay)

    def kept_share(self) -> Tensor:
        """k_c of each class, [C] float64 in [1e-8, 1]; 1e-8 takes a class out of the softmax."""
        return (self.kept / self.expected.clamp(min=1e-300)).clamp(1e-8, 1)

    def forward(self, logits_NCHW: Tensor) -> Tensor:
        """The adjusted logits."""
        return logits_NCHW + self.kept_share().log().to(logits_NCHW.dtype)[:, None, None]
