"""Colours that tell classes apart, also for readers who see no difference between red and green."""

from functools import cache

import numpy as np

# Okabe and Ito's set, in the order in which neighbours differ most
FIRST = [
    [213, 94, 0],
    [86, 180, 233],
    [240, 228, 66],
    [0, 158, 115],
    [204, 121, 167],
    [0, 114, 178],
    [230, 159, 0],
]
GRID = (24, 72, 120, 168, 216, 255)  # of each channel, what further colours are chosen from
# linear RGB as seen without the long and without the middle cones (Viénot, Brettel and Mollon 1999)
SEEN_BY = (
    np.eye(3),
    np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
)
TO_XYZ = np.array(
    [[0.412456, 0.357576, 0.180438], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]]
)


def class_palette(id2label: dict[int, str]) -> list[list[int]]:
    """One RGB colour a class; black is kept for a first class called background.

    Args:
        id2label: class names by id.

    Returns:
        Integers from 0 to 255 in the order of ids.
    """
    first = [[0, 0, 0]] if id2label[0] == "background" else []
    return first + distinct_colours(len(id2label) - len(first))


def distinct_colours(count: int) -> list[list[int]]:
    """Colours that differ for every kind of colour vision, the most distinct first."""
    return [list(colour) for colour in (*map(tuple, FIRST), *_further_colours())][:count]


@cache
def _further_colours() -> tuple[tuple[int, ...], ...]:
    candidates = np.array(np.meshgrid(GRID, GRID, GRID)).reshape(3, -1).T
    taken = [[0, 0, 0], [255, 255, 255], *FIRST]  # ground and paper
    nearest = np.min([distances(candidates, np.array(colour)) for colour in taken], 0)
    chosen = []
    for _ in candidates:
        best = int(nearest.argmax())
        chosen.append(tuple(candidates[best].tolist()))
        nearest = np.minimum(nearest, distances(candidates, candidates[best]))
    return tuple(chosen)


def distances(colours: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """CIE 1976 distance to a colour, the smallest over `SEEN_BY`.

    Args:
        colours: RGB from 0 to 255, [N, 3].
        colour: likewise, [3].

    Returns:
        float64 [N].
    """
    both = np.concatenate([colours, colour[None]]) / 255
    linear = np.where(both <= 0.04045, both / 12.92, ((both + 0.055) / 1.055) ** 2.4)
    seen = [_lab(np.clip(linear @ matrix.T, 0, 1)) for matrix in SEEN_BY]
    return np.min([np.linalg.norm(lab[:-1] - lab[-1], axis=1) for lab in seen], 0)


def _lab(linear: np.ndarray) -> np.ndarray:
    x, y, z = (np.cbrt(linear @ TO_XYZ.T / TO_XYZ.sum(1))).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
