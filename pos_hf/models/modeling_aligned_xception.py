"""The aligned Xception backbone of UniMatch V1's COCO models; saved weights carry a copy of this file."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import can_return_tuple

from .configuration_aligned_xception import AlignedXceptionConfig


def batch_norm(config: AlignedXceptionConfig, channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)


class ConvLayer(nn.Module):
    """Convolution and batch normalisation."""

    def __init__(
        self, config: AlignedXceptionConfig, channels: int, out_channels: int, kernel_size: int, stride: int
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.normalization = batch_norm(config, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.normalization(self.convolution(features))


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise convolution, each normalised; ReLU before the whole, or after each of the
    two."""

    def __init__(
        self,
        config: AlignedXceptionConfig,
        channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        activate_first: bool = True,
    ) -> None:
        super().__init__()
        self.activate_first = activate_first
        self.depthwise = nn.Conv2d(
            channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False
        )
        self.depthwise_normalization = batch_norm(config, channels)
        self.pointwise = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.pointwise_normalization = batch_norm(config, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        if self.activate_first:
            features = self.depthwise_normalization(self.depthwise(features.relu()))
            return self.pointwise_normalization(self.pointwise(features))
        features = self.depthwise_normalization(self.depthwise(features)).relu()
        return self.pointwise_normalization(self.pointwise(features)).relu()


class Block(nn.Module):
    """Three separable convolutions and a shortcut; the last convolution carries the stride."""

    def __init__(
        self,
        config: AlignedXceptionConfig,
        channels: int,
        sizes: tuple[int, int, int],
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        needs_projection = stride != 1 or sizes[-1] != channels
        self.shortcut = ConvLayer(config, channels, sizes[-1], 1, stride) if needs_projection else None
        self.rectify_identity = config.rectify_identity
        self.layers = nn.ModuleList(
            SeparableConv(config, before, after, stride if index == 2 else 1, dilation)
            for index, (before, after) in enumerate(zip((channels, *sizes[:-1]), sizes, strict=True))
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and the features before its last (strided) convolution."""
        if self.shortcut is not None:
            shortcut = self.shortcut(features)
        else:
            shortcut = features.relu() if self.rectify_identity else features
        inner = self.layers[1](self.layers[0](features))
        return self.layers[2](inner) + shortcut, inner


class AlignedXceptionBackbone(BackboneMixin, PreTrainedModel):
    """Aligned Xception with the stages `stem`, `stage1` (256 channels, stride 4) and `stage2` (2048
    channels)."""

    config: AlignedXceptionConfig
    base_model_prefix = "xception"
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: AlignedXceptionConfig) -> None:
        super().__init__(config)
        stem, entry, exits = config.stem_sizes, config.entry_sizes, config.exit_sizes
        width, dilation = entry[-1], max(1, 16 // config.output_stride)
        self.num_features = [stem[1], entry[1], exits[-1]]
        self.stem = nn.ModuleList(
            [ConvLayer(config, config.num_channels, stem[0], 3, 2), ConvLayer(config, stem[0], stem[1], 3, 1)]
        )
        strides = (2, 2, 1 if config.output_stride == 8 else 2)
        self.entry = nn.ModuleList(
            Block(config, before, (after, after, after), stride, 1)
            for before, after, stride in zip((stem[1], *entry[:-1]), entry, strides, strict=True)
        )
        self.middle = nn.ModuleList(
            Block(config, width, (width, width, width), 1, dilation) for _ in range(config.num_middle_blocks)
        )
        last_stride = 2 if config.output_stride == 32 else 1
        self.exit_block = Block(config, width, (width, exits[0], exits[0]), last_stride, dilation)
        self.exit_layers = nn.ModuleList(
            SeparableConv(config, before, after, dilation=dilation, activate_first=False)
            for before, after in pairwise(exits)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal with variance 2 / (kernel area x output channels), as in the published code."""
        if isinstance(module, nn.Conv2d):
            initialization.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        """Map images [B, 3, H, W] to the chosen stages' maps [B, D, ceil(H / stride), ceil(W / stride)]."""
        features = pixel_values
        for layer in self.stem:
            features = layer(features).relu()
        stages = {"stem": features}
        for index, block in enumerate(self.entry):
            features, inner = block(features)
            if index == 1:
                stages["stage1"] = inner
        for block in [*self.middle, self.exit_block]:
            features, _ = block(features)
        for layer in self.exit_layers:
            features = layer(features)
        stages["stage2"] = features
        feature_maps: Any = tuple(stages[name] for name in self.out_features)
        return BackboneOutput(feature_maps=feature_maps)


__all__ = ["AlignedXceptionBackbone"]
