"""The report's made-up run, with the facts of its training and a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from tests.reporting.fake_run import NAMES, fake_run

NETWORK = SegformerConfig(
    num_encoder_blocks=1,
    depths=[1],
    sr_ratios=[1],
    hidden_sizes=[8],
    patch_sizes=[3],
    strides=[2],
    num_attention_heads=[1],
    mlp_ratios=[1],
    decoder_hidden_size=8,
    id2label=dict(enumerate(NAMES)),
)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, *, unlabeled: bool = True, **facts: Any) -> Path:
        folder = fake_run(tmp_path / name, unlabeled=unlabeled)
        protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
        settings = json.loads((folder / "run.json").read_text())
        settings["facts"] = {"hub_dataset": None, "base_model": None} | protocol | facts
        (folder / "run.json").write_text(json.dumps(settings))
        torch.manual_seed(0)
        SegformerForSemanticSegmentation(NETWORK).save_pretrained(folder)
        SegformerImageProcessor(do_resize=False).save_pretrained(folder)
        return folder

    return make
