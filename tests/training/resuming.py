"""Trains runs once without a break and once from each of their checkpoints, and digests all that must agree.

usage: python -m tests.launching tests.training.resuming OUT
"""

import gc
import hashlib
import itertools
import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.data import DataArguments, PairedDataset, SegmentationData, load_data
from pos_hf.training import POSTrainer

from .tiny import TinyConfig, TinySegmenter, tiny_trainer

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))
METHODS: dict[str, dict[str, Any]] = {
    "unimatch_v1": {"threshold": 0.25},
    "unimatch_v2": {"threshold": 0.25},
    "fixmatch": {"threshold": {"name": "freematch", "decay": 0.15}},
}
CASES = [*itertools.product(METHODS, (1, 2), (0, 2))]  # method, accumulation, workers
NUM_STEPS = 8
# an epoch has 6 micro-batches: 6 steps, or 3 with accumulation; every one is inside a logging window of 4
INTERRUPTED = (1, 3, 5, 6, 7)

DATA = DataArguments(dataset="shapes", num_labeled=5, num_unlabeled=24, num_test=1, crop_size=16)


class ForgetfulSegmenter(TinySegmenter):
    """The tiny network with what else a resumed run can lose: running statistics and random numbers."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout2d(0.3)
        self.head = nn.Conv2d(6, 5, 1)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(
            logits=self.head(self.dropout(self.norm(self.backbone(pixel_values)).tanh()))
        )


class SaveAt(TrainerCallback):
    """Saves a checkpoint after each of some steps."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step in self.steps


@cache
def shapes() -> SegmentationData:
    return load_data(DATA)


def make_trainer(folder: str, method: str, **arguments: Any) -> POSTrainer:
    torch.manual_seed(0)
    model = ForgetfulSegmenter(TinyConfig(num_labels=5))
    pairs = PairedDataset.from_arguments(shapes(), DATA, seed=0)
    options = {
        "method": method,
        "method_options": METHODS[method],
        "train_dataset": pairs,
        "max_steps": NUM_STEPS,
        "logging_steps": 4,
    }
    return tiny_trainer(folder, model, **(options | arguments))


def run_case(folder: Path, method: str, accumulation: int, workers: int) -> dict[str, dict[str, str]]:
    """Digests of one uninterrupted run ("whole") and of its end after a resume from each interrupted step."""
    gc.freeze()  # the Trainer collects garbage at every start, and what the imports left is much to look at
    layout = {
        "gradient_accumulation_steps": accumulation,
        "dataloader_num_workers": workers,
        "per_device_train_batch_size": 4 // WORLD_SIZE,
    }
    whole = make_trainer(str(folder), method, callbacks=[SaveAt(INTERRUPTED)], **layout)
    whole.train()
    found = {"whole": digests(whole)}
    for step in INTERRUPTED:
        resumed = make_trainer(str(folder), method, **layout)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        found[str(step)] = digests(resumed)
    gc.unfreeze()
    return found


def digests(trainer: POSTrainer) -> dict[str, str]:
    """One digest of each thing that a resumed run must have in common with the uninterrupted one."""
    parts = {
        "student": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "method": trainer.method.state_dict(),
        "logs": [entry for entry in trainer.state.log_history if "loss" in entry],
        "skipped": [trainer.skips.in_a_row, trainer.skips.longest],
        "random": [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()],
    }
    if trainer.teacher:
        parts["teacher"] = trainer.teacher.state_dict()
    return {name: hashlib.sha256(spelled_out(part).encode()).hexdigest() for name, part in parts.items()}


def spelled_out(value: Any) -> str:
    """Every bit of nested tensors and numbers as a text."""
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}{value.detach().numpy().tobytes().hex()}"
    if isinstance(value, dict):
        return str([(name, spelled_out(value[name])) for name in sorted(value, key=str)])
    if isinstance(value, list | tuple):
        return str([spelled_out(item) for item in value])
    return repr(value)


def main(folder: str) -> None:
    out = Path(folder)
    found = {str(case): run_case(out / str(case), *case) for case in CASES}
    (out / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
