"""The configuration of AlignedXceptionBackbone; self-contained, since saved weights carry a copy of it."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin


@strict
class AlignedXceptionConfig(BackboneConfigMixin, PreTrainedConfig):
    """Aligned Xception (DeepLabV3+, arXiv 1802.02611, Fig. 4); the defaults are UniMatch V1's Xception-65.

    Stages to choose from: `stem` (stride 2), `stage1` (stride 4, inside the second entry block) and
    `stage2` (the end, at the output stride).

    Args:
        stem_sizes: channels of the two stem convolutions.
        entry_sizes: channels of the three entry blocks; the middle flow keeps the last.
        num_middle_blocks: blocks of the middle flow.
        exit_sizes: channels of the last block and of the three separable convolutions after it.
        output_stride: 16: the last block keeps its grid; 8: so does the third entry block, and everything
            after it is dilated by 2 (the published code's rule, not the a trous rule).
        rectify_identity: the published UniMatch V1 code rectifies the identity shortcuts (its first ReLU
            works in place); timm's and TensorFlow's do not.
        batch_norm_eps: epsilon of the batch normalisations (timm's and TensorFlow's weights: 1e-3).
        batch_norm_momentum: momentum of their running statistics.
    """

    model_type = "aligned_xception"

    num_channels: int = 3
    stem_sizes: list[int] | tuple[int, ...] = (32, 64)
    entry_sizes: list[int] | tuple[int, ...] = (128, 256, 728)
    num_middle_blocks: int = 16
    exit_sizes: list[int] | tuple[int, ...] = (1024, 1536, 1536, 2048)
    output_stride: Literal[8, 16, 32] = 16
    rectify_identity: bool = True
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 3e-4
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.stage_names = ["stem", "stage1", "stage2"]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)


AutoConfig.register("aligned_xception", AlignedXceptionConfig, exist_ok=True)

__all__ = ["AlignedXceptionConfig"]
