"""A tiny SegFormer in a folder, with the processor and the classes a test asks for. No test lives here."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BaseImageProcessor, SegformerConfig, SegformerForSemanticSegmentation


def save_segformer(
    folder: Path, processor: BaseImageProcessor, names: Sequence[str], num_channels: int = 3
) -> str:
    torch.manual_seed(0)
    config = SegformerConfig(
        num_channels=num_channels,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[1, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=8,
        id2label=dict(enumerate(names)),
        palette=[[10 * i, 20, 30] for i in range(len(names))],
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
