"""Mixing of two images on the device, as masks: CutMix boxes and ClassMix. No labels are made here."""

import torch
from torch import Tensor

from pos_hf.values import IGNORE_INDEX


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Draw boxes as masks.

    Args:
        boxes: int64 [..., 4]: top, left, height, width in pixels; all zero is no box.
        height: H in pixels.
        width: W in pixels.

    Returns:
        Bool [..., H, W], True inside.
    """
    top, left, box_height, box_width = boxes[..., None].unbind(-2)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    inside_rows = (rows >= top) & (rows < top + box_height)
    inside_columns = (columns >= left) & (columns < left + box_width)
    return inside_rows[..., :, None] & inside_columns[..., None, :]


def random_boxes(images_NCHW: Tensor) -> Tensor:
    """One CutMix box an image, int64 [N, 4], from the device's generator, for methods that draw their own.

    The published distribution (area share U(0.02, 0.4), aspect U(0.3, 1/0.3), uniform place), except that a
    box longer than the image is shortened where the published code draws again.
    """
    height, width = images_NCHW.shape[-2:]
    area, aspect, place_y, place_x = torch.rand(4, len(images_NCHW), device=images_NCHW.device)
    area = (0.02 + 0.38 * area) * height * width
    aspect = 0.3 + (1 / 0.3 - 0.3) * aspect
    box_height = (area * aspect).sqrt().long().clamp(max=height)
    box_width = (area / aspect).sqrt().long().clamp(max=width)
    top = (place_y * (height - box_height + 1)).long()
    left = (place_x * (width - box_width + 1)).long()
    return torch.stack([top, left, box_height, box_width], 1)


def class_mask(labels_NHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """ClassMix (Olsson et al., WACV 2021): a random half, rounded down, of each image's classes.

    Args:
        labels_NHW: Pseudo-labels, int64 below 255.
        valid_NHW: False on padding, which belongs to no class.

    Returns:
        Bool [N, H, W], True on the pixels of the chosen classes.
    """
    seen = torch.where(valid_NHW, labels_NHW, IGNORE_INDEX).flatten(1)
    present = seen.new_zeros(len(seen), IGNORE_INDEX + 1, dtype=torch.bool).scatter(1, seen, True)
    present[:, IGNORE_INDEX] = False
    draws = torch.rand(present.shape, device=seen.device).masked_fill(~present, 2.0)
    chosen = draws.argsort(1).argsort(1) < present.sum(1, keepdim=True) // 2
    return chosen.gather(1, seen).view_as(labels_NHW)


def paste(base: Tensor, patch: Tensor, mask_NHW: Tensor) -> Tensor:
    """Mix images [N, C, H, W] or pixel maps [N, H, W]: `patch` where the mask is True, `base` elsewhere."""
    return torch.where(mask_NHW.unsqueeze(1) if base.dim() == 4 else mask_NHW, patch, base)
