"""Mixing of two images on the device: CutMix boxes as masks. Boxes are drawn in pos_hf.data."""

import torch
from torch import Tensor


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes [..., 4] (top, left, height, width in pixels) as bool masks [..., H, W]; a zero box is empty."""
    top, left, box_height, box_width = boxes[..., None].unbind(-2)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    inside_rows = (rows >= top) & (rows < top + box_height)
    inside_columns = (columns >= left) & (columns < left + box_width)
    return inside_rows[..., :, None] & inside_columns[..., None, :]


def paste(base: Tensor, patch: Tensor, mask_NHW: Tensor) -> Tensor:
    """`patch` where the mask is True, `base` elsewhere, for images [N, C, H, W] or pixel maps [N, H, W]."""
    return torch.where(mask_NHW.unsqueeze(1) if base.dim() == 4 else mask_NHW, patch, base)
