"""The correction of L_u for what a rule keeps: its state by a loop, and what it makes L_u learn."""

import pytest
import torch

from pos_hf.methods import get_method
from pos_hf.methods.adjustments import LogitAdjustment
from pos_hf.methods.pseudo_labels import PseudoLabels
from tests.methods.published import pixels
from tests.methods.test_confidence import CLASSES, make_steps


def test_kept_shares_equal_a_loop_over_pixels():
    adjustment = LogitAdjustment(decay=0.9)
    kept, expected = None, None
    for _, _, probabilities, valid in make_steps():
        confidence, labels = probabilities.max(1)
        weights = (valid & (confidence >= 0.8)).double()
        adjustment.observe(probabilities, labels, weights, valid)
        now_kept, now_expected = [0.0] * CLASSES, [0.0] * CLASSES
        for n, i, j in pixels(valid):
            if valid[n, i, j]:
                values = probabilities[n, :, i, j].tolist()
                now_expected = [total + value for total, value in zip(now_expected, values, strict=True)]
                now_kept[values.index(max(values))] += max(values) >= 0.8
        if kept is None:
            kept, expected = now_kept, now_expected
        kept = [0.9 * old + 0.1 * new for old, new in zip(kept, now_kept, strict=True)]
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, now_expected, strict=True)]
    shares = [min(max(k / e, 1e-8), 1.0) for k, e in zip(kept, expected, strict=True)]
    assert adjustment.kept_share().tolist() == pytest.approx(shares, rel=1e-12)


def test_it_learns_the_classes_as_they_are_and_not_as_they_are_kept():
    """At the true posterior of a discrete world the expected gradient of the adjusted loss is zero."""
    generator = torch.Generator().manual_seed(0)
    joint_XC = torch.rand(6, CLASSES, generator=generator, dtype=torch.float64)
    joint_XC /= joint_XC.sum()
    kept_share_C = torch.tensor([0.9, 0.5, 0.05, 0.2], dtype=torch.float64)
    kept_XC = joint_XC * kept_share_C
    adjustment = LogitAdjustment()
    adjustment.kept, adjustment.expected = kept_XC.sum(0), joint_XC.sum(0)

    def gradient(adjusted: bool) -> torch.Tensor:
        logits = (joint_XC / joint_XC.sum(1, keepdim=True)).log().requires_grad_()
        image = logits.T[None, :, :, None]
        image = adjustment(image) if adjusted else image
        (kept_XC * -image.log_softmax(1)[0, :, :, 0].T).sum().backward()
        return logits.grad

    assert gradient(adjusted=True).abs().max() < 1e-15
    assert gradient(adjusted=False).abs().max() > 1e-2


def test_a_class_without_a_kept_pixel_is_not_unlearned():
    method = get_method("fixmatch", logit_adjustment=True, threshold=0.6)
    # the teacher finds class 2 likely but never likely enough
    probabilities = torch.tensor([0.7, 0.05, 0.2, 0.05]).view(1, CLASSES, 1, 1).expand(2, -1, 8, 8)
    padding = torch.zeros(2, 8, 8, dtype=torch.bool)
    target = method.pseudo_labels(probabilities.log(), padding)
    logits = torch.randn(2, CLASSES, 8, 8, requires_grad=True)
    method.unsupervised_loss(logits, target).backward()
    assert target.kept_share() == 1
    plain = torch.autograd.grad(get_method("fixmatch").unsupervised_loss(logits, target), logits)[0]
    assert plain[:, 2].min() > 1e-4
    assert (logits.grad[:, 2].abs() < 1e-6 * plain[:, 2]).all()


def test_where_every_pixel_counts_nothing_is_adjusted():
    labels = torch.randint(0, CLASSES, (2, 8, 8))
    probabilities = torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).double()
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    method = get_method("unimatch_v2", logit_adjustment=True)
    method.adjustment.observe(probabilities, labels, valid.double(), valid)
    logits, target = torch.randn(2, CLASSES, 8, 8).double(), PseudoLabels(labels, valid.double(), valid)
    plain = get_method("unimatch_v2").unsupervised_loss(logits, target)
    torch.testing.assert_close(method.unsupervised_loss(logits, target), plain, rtol=1e-12, atol=0)
