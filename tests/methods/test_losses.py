"""Supervised cross-entropy and OHEM against loops; ignored labels; the squared error."""

import numpy as np
import pytest
import torch

from pos_hf.errors import InputError
from pos_hf.methods import get_method
from pos_hf.methods.losses import OHEM, SUPERVISED_LOSSES, cross_entropy, squared_error
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


@pytest.mark.parametrize(
    "criterion",
    [
        cross_entropy,
        OHEM(min_kept=10),
        OHEM(min_kept=10_000),
        SUPERVISED_LOSSES["cross_entropy"](class_weights="balanced"),
    ],
)
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


def weighted_loss(logits, labels, weights):
    """Sum of weight x loss over the sum of weights, one pixel at a time."""
    losses = logits.log_softmax(1).neg()
    total = above = 0.0
    for n in range(labels.shape[0]):
        for row in range(labels.shape[1]):
            for column in range(labels.shape[2]):
                label = labels[n, row, column].item()
                if label != 255:
                    total = total + weights[label] * losses[n, label, row, column]
                    above += weights[label]
    return total / above


def test_class_weights_equal_a_loop_over_pixels():
    logits, labels = random_case()
    weights = [1.0, 0.0, 2.5, 0.3, 7.0]
    ours = SUPERVISED_LOSSES["cross_entropy"](class_weights=weights)(logits, labels)
    torch.testing.assert_close(ours, weighted_loss(logits, labels, weights), rtol=1e-12, atol=0)


def test_balanced_weights_are_the_root_of_rarity_over_all_steps_and_outlast_a_checkpoint():
    criterion = SUPERVISED_LOSSES["cross_entropy"](class_weights="balanced")
    counts = [0] * 5
    for step in range(3):
        logits, labels = random_case()
        labels[labels == 4] = 255 if step < 2 else 4  # a class that is met late
        for label in labels.flatten().tolist():
            if label != 255:
                counts[label] += 1
        ours = criterion(logits, labels)
        weights = [max(count, 1) ** -0.5 for count in counts]
        torch.testing.assert_close(ours, weighted_loss(logits, labels, weights), rtol=1e-12, atol=0)
    restored = SUPERVISED_LOSSES["cross_entropy"](class_weights="balanced")
    restored.load_state_dict(criterion.state_dict())
    logits, labels = random_case()
    assert torch.equal(restored(logits, labels), criterion(logits, labels))


@pytest.mark.parametrize("weights", ["root", [], [-1.0, 1.0], [0.0, 0.0]], ids=str)
def test_class_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(InputError, match="class_weights"):
        get_method("supervised", supervised_loss={"name": "cross_entropy", "class_weights": weights})


def test_as_many_class_weights_as_classes_are_needed():
    logits, labels = random_case()
    with pytest.raises(InputError, match="holds 2 weights for 5 classes"):
        SUPERVISED_LOSSES["cross_entropy"](class_weights=[1.0, 2.0])(logits, labels)
