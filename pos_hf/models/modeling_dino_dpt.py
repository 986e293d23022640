"""DinoDPTForSemanticSegmentation: a ViT backbone and UniMatch V2's DPT head.

Saved weights carry a copy of it as remote code, so it imports only its neighbours. Presets live in
presets.py.
"""

import math
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.backbone_utils import load_backbone
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils.generic import can_return_tuple

from .configuration_dino_dpt import DinoDPTConfig
from .segmentation import FeaturePerturbation, SegmentationModel, perturb_features, resize, segmentation_loss


def interpolate_positions_as_published(embeddings: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """DINOv2's own interpolation of position embeddings, to replace the method of HF's `Dinov2Embeddings`.

    The published code resamples by the factor (n + 0.1) / n_pretrained instead of to the size n: it takes
    the first n of n + 0.1 equally spaced points, up to 0.13 patches away from HF's. Written with
    `grid_sample`, as a factor that depends on the image size does not survive the export to ONNX.

    Args:
        embeddings: the `Dinov2Embeddings` with `position_embeddings` [1, 1 + n_pretrained^2, D].
        tokens: not read; part of the method's signature.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        [1, 1 + height * width / patch^2, D].
    """
    positions = embeddings.position_embeddings
    side = math.isqrt(positions.shape[1] - 1)
    patch_height, patch_width = embeddings.patch_embeddings.patch_size
    rows, columns = height // patch_height, width // patch_width
    if (rows, columns) == (side, side):
        return positions
    # the branch above is lost in an exported graph, so the offset has to vanish there by itself
    offset = 0.1 * torch.sym_min(1, (rows - side) ** 2 + (columns - side) ** 2)
    dtype = torch.promote_types(positions.dtype, torch.float32)
    grid_NDHW = positions[:, 1:].to(dtype).unflatten(1, (side, side)).permute(0, 3, 1, 2)
    y, x = (
        2 * (torch.arange(n, dtype=dtype, device=positions.device) + 0.5) / (n + offset) - 1
        for n in (rows, columns)
    )
    points_HW2 = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    grid_NDHW = F.grid_sample(grid_NDHW, points_HW2[None], "bicubic", "border", align_corners=False)
    patches = grid_NDHW.flatten(2).transpose(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


class ResidualUnit(nn.Module):
    """Pre-activation residual unit of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv2(self.conv1(features.relu()).relu())


class FusionBlock(nn.Module):
    """RefineNet fusion: add a finer level (all but the first block), refine, upsample, project."""

    def __init__(self, channels: int, has_skip: bool) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(channels) if has_skip else nn.Identity()
        self.unit = ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: tuple[int, ...]) -> Tensor:
        fused = level if coarser is None else coarser + self.skip_unit(level)
        return self.project(resize(self.unit(fused), size))


class DPTHead(nn.Module):
    """Reassemble four token maps at four resolutions, fuse them coarsest first (DPT, arXiv 2103.13413)."""

    def __init__(self, config: DinoDPTConfig, in_channels: list[int]) -> None:
        super().__init__()
        width = config.fusion_hidden_size
        sizes = config.neck_hidden_sizes
        classes: Any = config.num_labels
        self.projects = nn.ModuleList(nn.Conv2d(d, c, 1) for d, c in zip(in_channels, sizes, strict=True))
        self.resize_layers = nn.ModuleList(
            resampling_layer(c, factor) for c, factor in zip(sizes, config.reassemble_factors, strict=True)
        )
        self.level_convs = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1, bias=False) for c in sizes)
        self.fusions = nn.ModuleList(FusionBlock(width, has_skip=index > 0) for index in range(len(sizes)))
        self.output = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map features [B, D, h, w] (four levels) to logits [B, C, 8h, 8w] (with the default factors)."""
        layers = zip(self.projects, self.resize_layers, self.level_convs, features, strict=True)
        levels = [conv(resample(project(feature))) for project, resample, conv, feature in layers]
        sizes = [level.shape[-2:] for level in levels]
        sizes = [(2 * sizes[0][0], 2 * sizes[0][1]), *sizes[:-1]]
        fused = None
        for fusion, level, size in zip(self.fusions, reversed(levels), reversed(sizes), strict=True):
            fused = fusion(level, fused, size)
        return self.output(fused)


def resampling_layer(channels: int, factor: float) -> nn.Module:
    """The learned resampling of one level by `factor` (4, 2, 1 or 0.5 in the published head)."""
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, kernel_size=int(factor), stride=int(factor))
    if factor < 1:
        return nn.Conv2d(channels, channels, kernel_size=3, stride=round(1 / factor), padding=1)
    return nn.Identity()


class DinoDPTForSemanticSegmentation(SegmentationModel):
    """A ViT backbone with UniMatch V2's DPT head; logits at the input's size.

    Two parts of the published checkpoints that no forward uses are absent, so that nothing decays them: the
    backbone's mask token and the skip unit of the first fusion.
    """

    config: DinoDPTConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: DinoDPTConfig) -> None:
        super().__init__(config)
        self.backbone = load_backbone(config)
        self.head = DPTHead(config, self.backbone.channels)
        for module in self.backbone.modules():
            if "mask_token" in module._parameters:
                module.mask_token = None
        if config.position_interpolation == "published":
            embeddings = self.backbone.embeddings
            embeddings.interpolate_pos_encoding = MethodType(interpolate_positions_as_published, embeddings)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        feature_perturbation: FeaturePerturbation | None = None,
        perturb_from: int = 0,
        **kwargs: Any,
    ) -> SemanticSegmenterOutput:
        """Predict class scores for every pixel.

        Args:
            pixel_values: normalised images, float [B, 3, H, W]. Where H or W is no multiple of the patch,
                the image is resized to the nearest multiples (halves up) and the logits back, as the
                published evaluation does.
            labels: class ids, int64 [B, H, W]; `config.semantic_loss_ignore_index` marks pixels to leave out.
            feature_perturbation: see `perturb_features`; the four levels are the features.
            perturb_from: with "channel_dropout", the first row that gets a perturbed copy.
            kwargs: passed to the backbone (`output_hidden_states`, `output_attentions`).

        Returns:
            `logits` [B, C, H, W] ([2B - perturb_from, C, H, W] with "channel_dropout"); with labels also
            `loss`, the mean cross-entropy over the pixels not ignored (0 if there is none).
        """
        size = tuple(pixel_values.shape[-2:])
        patch_size = self.config.backbone_config.patch_size
        patches = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        inner = tuple(max(2 * n + p, 2 * p) // (2 * p) * p for n, p in zip(size, patches, strict=True))
        if inner != size:
            pixel_values = resize(pixel_values, inner)
        outputs = self.backbone.forward_with_filtered_kwargs(pixel_values, **kwargs)
        features = perturb_features(list(outputs.feature_maps), feature_perturbation, perturb_from)
        logits = resize(self.head(features), inner)
        if inner != size:
            logits = resize(logits, size)
        return SemanticSegmenterOutput(
            loss=None
            if labels is None
            else segmentation_loss(logits, labels, self.config.semantic_loss_ignore_index),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


DinoDPTForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")

__all__ = ["DinoDPTForSemanticSegmentation"]
