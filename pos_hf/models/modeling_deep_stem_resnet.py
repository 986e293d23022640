"""The deep-stem ResNet backbone (timm's "s" variant) of the published UniMatch V1; saved weights carry a
copy of it."""

from torch import nn
from transformers.models.resnet.modeling_resnet import ResNetBackbone, ResNetConvLayer

from .configuration_deep_stem_resnet import DeepStemResNetConfig


class DeepStemResNetBackbone(ResNetBackbone):
    """ResNetBackbone whose 7x7 stem is replaced by three 3x3 convolutions, the first with stride 2."""

    config: DeepStemResNetConfig

    def __init__(self, config: DeepStemResNetConfig) -> None:
        super().__init__(config)
        width = config.embedding_size // 2
        stem = nn.Sequential(
            ResNetConvLayer(config.num_channels, width, stride=2, activation=config.hidden_act),
            ResNetConvLayer(width, width, activation=config.hidden_act),
            ResNetConvLayer(width, config.embedding_size, activation=config.hidden_act),
        )
        self.embedder.add_module("embedder", stem)
        self.post_init()


__all__ = ["DeepStemResNetBackbone"]
