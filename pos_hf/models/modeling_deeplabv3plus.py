"""DeepLabV3PlusForSemanticSegmentation: a convolutional backbone and DeepLabV3+'s decoder, as in UniMatch V1.

Saved weights carry a copy of it as remote code, so it imports only its neighbours. Presets live in
presets.py.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.backbone_utils import load_backbone
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils.generic import can_return_tuple

from .backbones import replace_batch_norm, set_output_stride
from .configuration_deeplabv3plus import DeepLabV3PlusConfig
from .modeling_aligned_xception import AlignedXceptionBackbone
from .modeling_deep_stem_resnet import DeepStemResNetBackbone
from .segmentation import FeaturePerturbation, SegmentationModel, perturb_features, resize, segmentation_loss

# by type, not by AutoBackbone: remote code loads these files twice, with two classes for one configuration
OUR_BACKBONES = {"aligned_xception": AlignedXceptionBackbone, "deep_stem_resnet": DeepStemResNetBackbone}


def conv_layer(channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation, ReLU."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class AtrousSpatialPyramidPooling(nn.Module):
    """Five views of one map (1x1, three dilated 3x3, the image's mean), concatenated and projected."""

    def __init__(self, channels: int, out_channels: int, rates: list[int] | tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_layer(channels, out_channels, 1),
                *(conv_layer(channels, out_channels, 3, r) for r in rates),
            ]
        )
        self.pool = conv_layer(channels, out_channels, 1)
        self.project = conv_layer((len(rates) + 2) * out_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pool(features.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *features.shape[-2:])
        return self.project(torch.cat([*(branch(features) for branch in self.branches), pooled], dim=1))


class DeepLabV3PlusForSemanticSegmentation(SegmentationModel):
    """A convolutional backbone with DeepLabV3+'s decoder; logits at the input's size."""

    config: DeepLabV3PlusConfig

    def __init__(self, config: DeepLabV3PlusConfig) -> None:
        super().__init__(config)
        backbone_class = OUR_BACKBONES.get(config.backbone_config.model_type)
        self.backbone = (
            load_backbone(config) if backbone_class is None else backbone_class(config.backbone_config)
        )
        if config.output_stride is not None:
            set_output_stride(self.backbone, config.output_stride)
        low, high = self.backbone.channels[0], self.backbone.channels[-1]
        width: int = config.decoder_channels
        classes: Any = config.num_labels
        self.aspp = AtrousSpatialPyramidPooling(high, config.aspp_channels, config.aspp_rates)
        self.reduce = conv_layer(low, config.low_level_channels, 1)
        self.fuse = nn.Sequential(
            conv_layer(config.low_level_channels + config.aspp_channels, width, 3),
            conv_layer(width, width, 3),
        )
        self.classifier = nn.Conv2d(width, classes, 1)
        if config.group_norm_groups is not None:
            replace_batch_norm(self, config.group_norm_groups)
        self.post_init()

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """None: a convolutional network has no embeddings, which accelerate's FSDP2 asks every model for."""

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
            pixel_values: normalised images, float [B, 3, H, W].
            labels: class ids, int64 [B, H, W]; `config.semantic_loss_ignore_index` marks pixels to leave out.
            feature_perturbation: see `perturb_features`; the features are the low-level map and the last one.
            perturb_from: with "channel_dropout", the first row that gets a perturbed copy.
            kwargs: passed to the backbone (`output_hidden_states`).

        Returns:
            `logits` [B, C, H, W] ([2B - perturb_from, C, H, W] with "channel_dropout"); with labels also
            `loss`, the mean cross-entropy over the pixels not ignored (0 if there is none).
        """
        outputs = self.backbone.forward_with_filtered_kwargs(pixel_values, **kwargs)
        features = [outputs.feature_maps[0], outputs.feature_maps[-1]]
        low, high = perturb_features(features, feature_perturbation, perturb_from)
        high = resize(self.aspp(high), low.shape[-2:])
        fused = self.fuse(torch.cat([self.reduce(low), high], dim=1))
        logits = resize(self.classifier(fused), pixel_values.shape[-2:])
        return SemanticSegmenterOutput(
            loss=None
            if labels is None
            else segmentation_loss(logits, labels, self.config.semantic_loss_ignore_index),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


DeepLabV3PlusForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")

__all__ = ["DeepLabV3PlusForSemanticSegmentation"]
