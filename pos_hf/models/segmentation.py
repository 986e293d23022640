"""What every segmentation model of the package does around its network: resizing, loss, initialisation,
perturbation.

The networks live in the modeling files, which import from here; so saved weights carry a copy of this file
too.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, initialization

FeaturePerturbation = Literal["channel_dropout", "complementary_dropout"]


def resize(images_NCHW: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear with aligned corners: the only interpolation of the published models and evaluation."""
    return F.interpolate(images_NCHW, size=size, mode="bilinear", align_corners=True)


def segmentation_loss(logits_NCHW: Tensor, labels_NHW: Tensor, ignore_index: int) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 (with a graph) where all are.

    Args:
        logits_NCHW: class scores, float [B, C, H, W].
        labels_NHW: class ids, int64 [B, H, W].
        ignore_index: label of the pixels to leave out.

    Returns:
        0-d float32.
    """
    total = F.cross_entropy(logits_NCHW.float(), labels_NHW, ignore_index=ignore_index, reduction="sum")
    return total / (labels_NHW != ignore_index).sum().clamp(min=1)


def perturb_features(
    features: list[Tensor], perturbation: FeaturePerturbation | None, perturb_from: int
) -> list[Tensor]:
    """Perturb feature maps as UniMatch does; masks are drawn on the features' device.

    Args:
        features: maps [B, D_i, h_i, w_i], one a level.
        perturbation: None; "channel_dropout": the rows, then the rows from `perturb_from` on with whole
            channels dropped (p = 0.5, each level on its own; UniMatch V1, arXiv 2208.09910);
            "complementary_dropout": the rows are [view 1; view 2] of the same images, and each view drops the
            channels that the other keeps (UniMatch V2).
        perturb_from: the first row that "channel_dropout" copies.

    Returns:
        Maps [B, ...], or [2B - perturb_from, ...] with "channel_dropout".
    """
    if perturbation is None:
        return features
    if perturbation == "channel_dropout":
        return [torch.cat([level, F.dropout2d(level[perturb_from:], 0.5)]) for level in features]
    return complementary_dropout(features)


def complementary_dropout(features: list[Tensor]) -> list[Tensor]:
    """Drop complementary channels of two strong views (UniMatch V2, arXiv 2410.10777; the published code).

    A mask m of 0s and 2s is drawn per image and channel; the first view is multiplied by m, the second by 2
    - m. floor(B / 2) of the B images, drawn at random, stay whole. Levels of one width share m, as the
    tokens of a ViT do; levels of different widths draw their own.

    Args:
        features: maps [2B, D_i, h_i, w_i]; row i and row B + i are the two views of one image.

    Returns:
        Maps of the same shapes.
    """
    images, device = features[0].shape[0] // 2, features[0].device
    whole_N1 = (torch.rand(images, device=device).argsort() < images // 2)[:, None]
    masks: dict[int, Tensor] = {}
    for channels in (level.shape[1] for level in features):
        if channels not in masks:
            mask_ND = 2.0 * torch.randint(2, (images, channels), device=device)
            mask_ND = torch.where(whole_N1, 1.0, mask_ND)
            masks[channels] = torch.cat([mask_ND, 2 - mask_ND])[:, :, None, None]
    return [level * masks[level.shape[1]].to(level.dtype) for level in features]


class SegmentationModel(PreTrainedModel):
    """The flags that transformers and the Trainer read, and the initialisation of the heads."""

    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012 - the base class's type
    accepts_loss_kwargs = False
    supports_feature_perturbation = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's default for convolutions (uniform in +-1/sqrt(fan_in)), as in the published code."""
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            initialization.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                initialization.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)
