"""Supervised cross-entropy and OHEM against loops; ignored labels; the squared error."""

import numpy as np
import pytest
import torch

from pos_hf.methods.losses import OHEM, cross_entropy, squared_error
from tests.methods.published import labeled_loss


def random_case(ignored_share=0.2, scale=3.0):
    logits = (scale * torch.randn(2, 5, 6, 7, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 5, (2, 6, 7))
    labels[torch.rand(2, 6, 7) < ignored_share] = 255
    return logits, labels


def test_cross_entropy_is_the_mean_over_labeled_pixels():
    logits, labels = random_case()
    torch.testing.assert_close(
        cross_entropy(logits, labels), labeled_loss(logits, labels), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("criterion", [cross_entropy, OHEM(min_kept=10), OHEM(min_kept=10_000)])
def test_all_labels_ignored_gives_exactly_zero_with_a_graph(criterion):
    logits, labels = random_case()
    loss = criterion(logits, torch.full_like(labels, 255))
    assert loss.item() == 0.0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def published_ohem(logits, labels, threshold, min_kept):
    """Sort the true classes' probabilities (1 where ignored); keep up to max(threshold, min_kept-th)."""
    probabilities = logits.detach().softmax(1).numpy()
    flat = []
    for n in range(labels.shape[0]):
        for row in range(labels.shape[1]):
            for column in range(labels.shape[2]):
                label = labels[n, row, column].item()
                flat.append(1.0 if label == 255 else probabilities[n, label, row, column])
    flat = np.array(flat)
    num_valid = int((labels != 255).sum())
    kept_labels = labels.clone().view(-1)
    if min_kept <= num_valid:
        limit = max(threshold, np.sort(flat)[min(len(flat), min_kept) - 1])
        kept_labels[torch.from_numpy(flat > limit)] = 255
    return labeled_loss(logits, kept_labels.view_as(labels)), int((kept_labels != 255).sum())


@pytest.mark.parametrize(
    ("threshold", "min_kept", "scale"),
    [(0.7, 20, 3.0), (0.2, 20, 3.0), (0.7, 5, 0.1), (0.05, 1, 3.0), (0.3, 10_000, 3.0)],
    ids=["threshold decides", "min_kept decides", "all hard", "one pixel", "fewer labels than min_kept"],
)
def test_ohem_equals_the_published_sort(threshold, min_kept, scale):
    logits, labels = random_case(scale=scale)
    expected, kept = published_ohem(logits, labels, threshold, min_kept)
    ours = OHEM(threshold, min_kept)(logits, labels)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    assert (gradients[0].abs().sum(1) > 0).sum() == kept


def test_ohem_keeps_exactly_min_kept_when_all_pixels_are_easy():
    logits = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    logits[:, 0] = torch.linspace(5, 9, 16, dtype=torch.float64).view(1, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    loss = OHEM(0.7, 3)(logits, labels)
    hardest = -torch.log_softmax(logits, 1)[0, 0].flatten()[:3]
    torch.testing.assert_close(loss, hardest.mean())


def test_squared_error_sums_over_classes_and_leaves_padding_out():
    logits, target = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4).softmax(1)
    padding = torch.zeros(2, 4, 4, dtype=torch.bool)
    padding[1, :, 2:] = True
    distances = [
        sum((logits.softmax(1)[n, c, i, j] - target[n, c, i, j]) ** 2 for c in range(3))
        for n in range(2)
        for i in range(4)
        for j in range(4)
        if not padding[n, i, j]
    ]
    torch.testing.assert_close(squared_error(logits, target, padding), torch.stack(distances).mean())
