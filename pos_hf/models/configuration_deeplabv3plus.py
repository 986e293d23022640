"""The configuration of DeepLabV3PlusForSemanticSegmentation. Saved weights carry a copy of it as remote
code."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

# these two make their model types known where the package is not installed
from .configuration_aligned_xception import AlignedXceptionConfig  # noqa: F401
from .configuration_deep_stem_resnet import DeepStemResNetConfig  # noqa: F401


@strict
class DeepLabV3PlusConfig(PreTrainedConfig):
    """A convolutional backbone with DeepLabV3+'s decoder (arXiv 1802.02611); the defaults are UniMatch V1's
    ResNet-50.

    Args:
        backbone_config: any backbone configuration whose first feature map (stride 4) feeds the decoder's
            shortcut and whose last (stride 8, 16 or 32) feeds the pyramid.
        output_stride: stride that the last map is brought to by dilation; None takes the backbone as it is.
        aspp_rates: dilations of the pyramid's 3x3 branches.
        aspp_channels: channels of every branch of the pyramid.
        low_level_channels: channels of the decoder's shortcut.
        decoder_channels: channels of the decoder's two 3x3 convolutions.
        group_norm_groups: groups of the GroupNorm that stands in for every BatchNorm, backbone included; None
            keeps BatchNorm. For training from scratch where the views of a step are separate forwards
            (UniMatch V2): BatchNorm's running statistics would mix clean and strong views.
        semantic_loss_ignore_index: label of the pixels that the loss leaves out.
    """

    model_type = "deeplabv3plus"
    sub_configs_defaults = {  # noqa: RUF012 - the base class's declaration
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig, model_type="deep_stem_resnet", init_kwargs={"out_indices": [1, 4]}
        ),
    }

    backbone_config: Any = None
    output_stride: int | None = 16
    aspp_rates: list[int] | tuple[int, ...] = (6, 12, 18)
    aspp_channels: int = 256
    low_level_channels: int = 48
    decoder_channels: int = 256
    group_norm_groups: int | None = None
    semantic_loss_ignore_index: int = 255

    def validate_architecture(self) -> None:
        """Called by `@strict` after construction."""
        if len(self.backbone_config.out_indices) < 2:
            raise ValueError(
                "backbone_config.out_indices must name two feature maps, one of stride 4 and the last one; "
                f"got {self.backbone_config.out_indices}"
            )


DeepLabV3PlusConfig.register_for_auto_class()

__all__ = ["DeepLabV3PlusConfig"]
