"""On the accelerator: strong views, from the draws that workers send, and normalisation. The Pillow reference
of the views is in views.py.

A worker draws the same `Photometry` for either path, so a key names the same view wherever it is made; the
pictures agree to rounding. No step waits for the device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pos_hf.data.views import HUE, NOISE_SPREAD, noise_levels

IMAGES = {"pixel_values", "strong_pixel_values"}
"""Of a batch; the rest are labels, masks, boxes and keys."""
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, Pillow's "L"
BOX_RADIUS = 2  # enough for sigma 2


class NormalisedBatch:
    """Makes of a batch on the device what a network sees.

    Args:
        mean: of each channel, in shares of 255.
        std: likewise.
        device: of the batches.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        # one statistic a channel, broadcast over [..., channels, H, W]
        self.mean = torch.tensor(mean, device=device)[:, None, None]
        self.std = torch.tensor(std, device=device)[:, None, None]

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
        """Make the strong views that workers left out, and float32 of all images.

        Args:
            batch: collated, images uint8.

        Returns:
            The same groups; what is no image is as it was.
        """
        made = {group: dict(add_strong_views(views)) for group, views in batch.items()}
        for views in made.values():
            for name in views.keys() & IMAGES:
                views[name] = (views[name] / 255 - self.mean) / self.std
        return made


def add_strong_views(unlabeled: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace a batch's draws by the strong views they describe.

    Args:
        unlabeled: pixel_values uint8 [B, C, H, W] and, from workers that left the strong views to the device,
            photometry float32 [B, K, 12].

    Returns:
        The same with strong_pixel_values uint8 [B, K, C, H, W] in place of photometry.
    """
    if "photometry" not in unlabeled:
        return unlabeled
    strong = apply_photometry(unlabeled["pixel_values"], unlabeled["photometry"])
    return {name: value for name, value in unlabeled.items() if name != "photometry"} | {
        "strong_pixel_values": strong
    }


def apply_photometry(pixel_values: Tensor, photometry: Tensor) -> Tensor:
    """Colour jitter, grayscale, blur and noise, each image with its own draws.

    Args:
        pixel_values: uint8 [B, C, H, W]; of other than three channels each is a gray picture.
        photometry: float32 [B, K, 12], rows of `Photometry.to_row`.

    Returns:
        uint8 [B, K, C, H, W].
    """
    is_rgb = pixel_values.shape[1] == len(LUMA)
    batch, views = photometry.shape[:2]
    draws = photometry.flatten(0, 1)
    images = pixel_values.float().repeat_interleave(views, dim=0)
    factors, hue, order, grayscale, sigma, noise, seed = draws.split([3, 1, 4, 1, 1, 1, 1], dim=1)
    # hue is costly and the rest is not: blends before it, hue, blends after it, with factor 1 where not due
    hue_position = (order == HUE).int().argmax(dim=1)
    for position in range(4):
        images = _blend(images, factors, order[:, position], due=position < hue_position)
    images = _shift_hue(images, hue[:, 0]) if is_rgb else images
    for position in range(4):
        images = _blend(images, factors, order[:, position], due=position > hue_position)
    images = torch.where(grayscale[:, :, None, None] > 0, _luma(images).round(), images)
    images = _blur(images, sigma[:, 0])
    images = images if is_rgb else _add_noise(images.round(), noise, seed)
    return images.round().to(torch.uint8).unflatten(0, (batch, views))


def _blend(images: Tensor, factors: Tensor, operation: Tensor, due: Tensor) -> Tensor:
    """Move each image towards (or away from) black, its mean gray or its own gray; [N, C, H, W]."""
    operation = operation.long()
    gray = _luma(images).round()
    mean = (gray.mean(dim=(2, 3), keepdim=True) + 0.5).floor()
    black = torch.zeros_like(mean)
    target = torch.where(_column(operation == 1), mean, black)
    target = torch.where(_column(operation == 2), gray, target)
    factor = factors.gather(1, operation.clamp(max=2)[:, None])[:, 0]
    factor = torch.where(due, factor, torch.ones_like(factor))
    return torch.lerp(target.expand_as(images), images, _column(factor)).clamp(0, 255).floor()


def _shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of RGB images, [N, 3, H, W], through Pillow's 8 bits of hue and saturation."""
    shift = (turns * 255).trunc()
    high, low = images.amax(dim=1), images.amin(dim=1)
    chroma = (high - low).clamp(min=1)
    red, green, blue = images.unbind(dim=1)
    sector = torch.where(
        high == red,
        (green - blue) / chroma,
        torch.where(high == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    hue = ((sector / 6) % 1 * 255 + 1e-3).floor()  # 1e-3: Pillow's whole numbers are not missed by rounding
    hue = (hue + shift[:, None, None]) % 256 / 255 * 6
    saturation = ((high - low) / high.clamp(min=1) * 255 + 1e-3).floor() / 255
    # the distance of the hue from each primary gives its channel (Smith 1978, without the six cases)
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    ramp = (hue[:, None] + offsets) % 6
    channel = high[:, None] * (1 - saturation[:, None] * torch.minimum(ramp, 4 - ramp).clamp(0, 1))
    return torch.where(_column(shift != 0), (channel + 0.5).floor(), images)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own sigma, edges repeated; sigma 0 leaves an image as it is.

    Pillow's Gaussian is three extended box filters along the rows, then three down the columns (Gwosdek et
    al. 2011), each rounded.
    """
    count, channels, height, width = images.shape
    boxes = _box_filters(sigma).repeat_interleave(channels, dim=0)
    blurred = images.reshape(1, -1, height, width)
    rows, columns = boxes[:, None, None, :], boxes[:, None, :, None]
    for kernel in (rows, rows, rows, columns, columns, columns):
        padding = [BOX_RADIUS * (size > 1) for size in kernel.shape[:1:-1] for _ in range(2)]
        padded = F.pad(blurred, padding, mode="replicate")
        blurred = (F.conv2d(padded, kernel, groups=count * channels) + 0.499).floor()  # ties go down
    return torch.where(_column(sigma > 0), blurred.view_as(images), images)


def _box_filters(sigma: Tensor) -> Tensor:
    """The box filter, ends weighted, that applied three times has variance sigma^2; [N, 2 BOX_RADIUS + 1]."""
    variance = sigma**2
    whole = ((torch.sqrt(4 * variance + 1) - 1) / 2).floor()
    end = (2 * whole + 1) * (whole * (whole + 1) - variance) / (2 * (variance - 3 * (whole + 1) ** 2))
    offsets = torch.arange(-BOX_RADIUS, BOX_RADIUS + 1, device=sigma.device).abs()
    box = (offsets <= whole[:, None]) + end[:, None] * (offsets == whole[:, None] + 1)
    return box / box.sum(dim=1, keepdim=True)


def _add_noise(images: Tensor, noise: Tensor, seed: Tensor) -> Tensor:
    """The noise of `add_noise` in views.py; [N, C, H, W]."""
    indices = torch.arange(images[0].numel(), device=images.device)
    levels = noise_levels(indices, seed.long()).view_as(images)
    return (images + (levels * _column(noise[:, 0] / NOISE_SPREAD)).round()).clamp(0, 255)


def _luma(images: Tensor) -> Tensor:
    """The gray of RGB images, [N, 1, H, W]; of others each band is its own."""
    if images.shape[1] != len(LUMA):
        return images
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _column(values: Tensor) -> Tensor:
    """[N] -> [N, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)
