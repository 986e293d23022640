"""Colour's power to tell classes apart, against a classifier that goes pixel by pixel."""

import numpy as np
import pytest

from pos_hf.data.class_colors import ClassColors


def images(num, spread, seed=0, grey=False):
    """Three classes of random regions whose colours scatter around red, green and blue, or three greys."""
    rng = np.random.default_rng(seed)
    centers = (
        np.full((3, 3), [[30], [125], [220]])
        if grey
        else np.array([[200, 50, 50], [50, 200, 50], [50, 50, 200]])
    )
    for _ in range(num):
        mask = rng.integers(0, 3, (24, 24)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
        image = centers[mask] + rng.normal(0, spread, (48, 48, 3))
        yield image.clip(0, 255).astype(np.uint8), mask


def slow_balanced_accuracy(pairs):
    """Half of the images judges the other: of every colour the class that shows it with the largest share."""
    halves = [[], []]
    for index, (image, mask) in enumerate(pairs):
        halves[index % 2] += [
            (tuple(int(v) >> 5 for v in image[y, x]), int(mask[y, x]))
            for y in range(0, image.shape[0], 2)
            for x in range(0, image.shape[1], 2)
        ]
    scores = []
    for judge, judged in (halves, halves[::-1]):
        totals = [sum(c == k for _, c in judge) for k in range(3)]
        shares = {}
        for color, c in judge:
            shares.setdefault(color, [0.0] * 3)[c] += 1 / totals[c]
        right = [0, 0, 0]
        for color, c in judged:
            right[c] += color in shares and int(np.argmax(shares[color])) == c
        scores.append(np.mean([right[k] / sum(c == k for _, c in judged) for k in range(3)]))
    return np.mean(scores)


@pytest.mark.parametrize(("spread", "grey", "line"), [
    (5, False, "strong_views: no_color"), (5, True, "strong_views: gentle"), (120, False, ""),
])  # fmt: skip
def test_separable_classes_get_a_line_and_others_none(spread, grey, line):
    pairs = list(images(4, spread, grey=grey))
    colors = ClassColors(3)
    for image, mask in pairs:
        colors.add(image, mask)
    assert colors.separability() == pytest.approx(slow_balanced_accuracy(pairs))
    assert colors.line() == line
