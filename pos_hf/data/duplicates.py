"""Finds images that look alike, by a fingerprint that survives recompression and small changes of light."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 16
ALIKE = 0.92  # recompressed, resized and relit copies of CamVid's images score above 0.928, others below 0.91
MIN_CHANGES = 32  # with fewer visible changes a picture is too flat to be recognised
CHUNK = 4096


def fingerprint(image: Image.Image | np.ndarray) -> np.ndarray:
    """Whether the picture grows brighter from each cell of a 16 x 16 grid to the next one on the right.

    Args:
        image: PIL RGB image, or uint8 [H, W, C].

    Returns:
        int8 [256] of -1 (darker), 0 (no visible change) and 1 (brighter).
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.mean(-1).astype(np.uint8))
    small = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    change = np.diff(small, axis=1)
    return (np.sign(change) * (abs(change) > 1)).astype(np.int8).ravel()


def near_duplicates(
    images: dict[str, np.ndarray], others: dict[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    """Find images that have a twin among others.

    Args:
        images: Fingerprints by name.
        others: Fingerprints by name.

    Yields:
        (name of an image, name of the one most like it).
    """
    if not images or not others:
        return
    names, other_names = list(images), list(others)
    first = np.array(list(images.values()), np.float32)
    best, twins = np.zeros(len(names)), np.zeros(len(names), np.int64)
    for start in range(0, len(other_names), CHUNK):
        second = np.array([others[name] for name in other_names[start : start + CHUNK]], np.float32)
        changes = (first**2).sum(1)[:, None] + (second**2).sum(1)
        alike = np.where(changes > 2 * MIN_CHANGES, 2 * first @ second.T / np.maximum(changes, 1), 0)
        better = alike.max(1) > best
        twins = np.where(better, start + alike.argmax(1), twins)
        best = np.maximum(best, alike.max(1))
    for index in np.flatnonzero(best > ALIKE):
        yield names[index], other_names[twins[index]]
