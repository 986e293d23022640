"""The configuration of DeepStemResNetBackbone; self-contained, since saved weights carry a copy of it."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, ResNetConfig


@strict
class DeepStemResNetConfig(ResNetConfig):
    """A ResNet of transformers with three 3x3 convolutions for a stem; the defaults are ResNet-50s.

    Args:
        embedding_size: channels that leave the stem; its first two convolutions have half as many.
    """

    model_type = "deep_stem_resnet"

    embedding_size: int = 128


AutoConfig.register("deep_stem_resnet", DeepStemResNetConfig, exist_ok=True)

__all__ = ["DeepStemResNetConfig"]
