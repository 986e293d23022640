"""The configuration of DinoDPTForSemanticSegmentation. Self-contained: saved weights carry a copy of it."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class DinoDPTConfig(PreTrainedConfig):
    """A plain ViT backbone with the DPT head of UniMatch V2 (arXiv 2410.10777). The defaults are
    DINOv2-small.

    Args:
        backbone_config: any ViT backbone configuration with as many `out_indices` as `neck_hidden_sizes`,
            whose feature maps are [B, hidden_size, height / patch, width / patch] (Dinov2,
            Dinov2WithRegisters, DINOv3 ViT).
        neck_hidden_sizes: channels of the four reassembled levels, finest first.
        reassemble_factors: size of each level relative to the patch grid.
        fusion_hidden_size: channels of the fusion blocks and of the output convolution.
        position_interpolation: how position embeddings meet another grid than the pretrained one.
            "transformers" keeps the backbone's own rule; "published" is that of the DINOv2 code (bicubic by
            a scale factor with an offset of 0.1 patches, no antialiasing), for logits equal to the published
            checkpoints off 518 pixels.
        semantic_loss_ignore_index: label of the pixels that the loss leaves out.
    """

    model_type = "dino_dpt"
    sub_configs_defaults = {  # noqa: RUF012 - the base class's declaration
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="dinov2",
            init_kwargs={
                "image_size": 518,
                "hidden_size": 384,
                "num_attention_heads": 6,
                "out_indices": [3, 6, 9, 12],
            },
        ),
    }

    backbone_config: Any = None
    neck_hidden_sizes: list[int] | tuple[int, ...] = (48, 96, 192, 384)
    reassemble_factors: list[int | float] | tuple[int | float, ...] = (4, 2, 1, 0.5)
    fusion_hidden_size: int = 64
    position_interpolation: Literal["transformers", "published"] = "transformers"
    semantic_loss_ignore_index: int = 255

    def validate_architecture(self) -> None:
        """Called by `@strict` after construction."""
        levels = len(self.neck_hidden_sizes)
        if len(self.backbone_config.out_indices) != levels or len(self.reassemble_factors) != levels:
            raise ValueError(
                f"neck_hidden_sizes has {levels} levels, but the backbone yields "
                f"{len(self.backbone_config.out_indices)} feature maps for {len(self.reassemble_factors)} "
                "reassemble_factors; give the three the same length"
            )
        if self.position_interpolation == "published" and self.backbone_config.model_type != "dinov2":
            raise ValueError(
                f"position_interpolation='published' is DINOv2's rule and cannot serve a "
                f"{self.backbone_config.model_type} backbone; use 'transformers'"
            )


DinoDPTConfig.register_for_auto_class()

__all__ = ["DinoDPTConfig"]
