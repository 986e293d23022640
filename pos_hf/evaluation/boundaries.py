"""Boundary IoU: the overlap near class borders, which decides about small objects and thin parts."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from pos_hf.values import IGNORE_INDEX

WIDTH = 0.02
"""Half-width of the border band as a share of the image's diagonal (the published default)."""
SUMS_BYTES = 256 * 2**20
"""Of the integral images held at once: the classes of a large image are measured a few at a time."""


def boundary_areas(predictions_NHW: Tensor, labels_NHW: Tensor, num_classes: int) -> Tensor:
    """Pixel counts of each class's border band, ready for `metrics.class_iou`.

    A class's band is its mask without the mask eroded by `WIDTH` (Cheng et al., Boundary IoU, CVPR 2021); the
    image's edge counts as border, as published. Ignored pixels belong to no class on either side.

    Args:
        predictions_NHW: Integer class ids, [N, H, W].
        labels_NHW: Integer class ids or 255, [N, H, W].
        num_classes: Number of classes C.

    Returns:
        int64 [3, C]: intersection, predicted area and labeled area, summed over the images.
    """
    height, width = labels_NHW.shape[-2:]
    radius = max(1, round(WIDTH * (height**2 + width**2) ** 0.5))
    predictions_NHW = torch.where(labels_NHW == IGNORE_INDEX, IGNORE_INDEX, predictions_NHW)
    areas = torch.zeros(3, num_classes, dtype=torch.int64, device=labels_NHW.device)
    for maps_2HW in torch.stack([predictions_NHW, labels_NHW], 1):
        classes = maps_2HW.unique().long()
        at_once = max(1, SUMS_BYTES // (2 * 4 * height * width))
        for some in classes[classes < num_classes].split(at_once):
            masks = maps_2HW[:, None] == some[:, None, None]
            predicted, labeled = masks & ~_eroded(masks, radius)
            bands = torch.stack([predicted & labeled, predicted, labeled])
            areas[:, some] += bands.sum((-2, -1))
    return areas


def _eroded(masks: Tensor, radius: int) -> Tensor:
    """Pixels whose whole square of side 2 * radius + 1 lies in the mask, by box sums of an integral image."""
    side = 2 * radius + 1
    sums = pad(masks.to(torch.int32), (radius + 1, radius, radius + 1, radius)).cumsum(-1).cumsum(-2)
    sums = sums[..., side:, :] - sums[..., :-side, :]
    return sums[..., side:] - sums[..., :-side] == side * side
