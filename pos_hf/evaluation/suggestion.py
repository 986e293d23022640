"""Which unlabeled images to label next: worth a label most by a model's doubt, and unlike one another.

The doubt is the entropy of the class probabilities, each class's part weighted by how rare the class is
(weighted entropy, Guiasu 1971; class-balanced choice as in Bengar et al., WACV 2022), so that one doubtful
sign outweighs a doubtful strip of sky. The images are taken greedily, each time the one with the largest
product of its worth and its distance to those taken (k-center, Sener and Savarese, ICLR 2018, weighted).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

GRID = 4
"""Cells a side in which the layout of an image is told."""


class Doubt(NamedTuple):
    """What is kept of one image's class probabilities, float64."""

    entropy: np.ndarray
    """Part of each class in the mean entropy of a pixel, in nats, [C]."""
    share: np.ndarray
    """Mean probability of each class, [C]."""
    layout: np.ndarray
    """Square roots of the mean probabilities in `GRID` x `GRID` cells, [C * GRID^2]."""


def doubt_of(probabilities_CHW: Tensor) -> Doubt:
    """Sum up one image.

    Args:
        probabilities_CHW: Of the classes, summing to 1.
    """
    entropy_C = probabilities_CHW.xlogy(probabilities_CHW).mean((1, 2)).neg()
    cells = adaptive_avg_pool2d(probabilities_CHW, GRID)
    return Doubt(
        entropy_C.double().cpu().numpy(),
        probabilities_CHW.mean((1, 2)).double().cpu().numpy(),
        cells.double().clamp(min=0).sqrt().flatten().cpu().numpy(),
    )


def worth(doubts: Sequence[Doubt]) -> np.ndarray:
    """What a label of each image is worth, float64 [N].

    A class counts by one over the square root of its share in all of these images, as the model expects it.
    """
    share_C = np.mean([doubt.share for doubt in doubts], axis=0)
    weight_C = 1 / np.sqrt(np.maximum(share_C, 1e-6))
    return np.stack([doubt.entropy for doubt in doubts]) @ weight_C


def choose(worth_N: np.ndarray, layouts_ND: np.ndarray, count: int) -> list[int]:
    """Take images of high worth that do not resemble one another.

    Args:
        worth_N: Of each image, at least 0.
        layouts_ND: A point for each image; near ones are alike.
        count: Images to take, at most N.

    Returns:
        Their numbers, the first the one of the highest worth.
    """
    taken = [int(worth_N.argmax())]
    distance_N = np.linalg.norm(layouts_ND - layouts_ND[taken[0]], axis=1)
    while len(taken) < count:
        value_N = worth_N * distance_N
        value_N[taken] = -1
        taken.append(int(value_N.argmax()))
        distance_N = np.minimum(distance_N, np.linalg.norm(layouts_ND - layouts_ND[taken[-1]], axis=1))
    return taken
