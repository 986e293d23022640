"""Trains every combination of the equality test in this process's layout and saves the weights.

usage: python -m tests.training.trajectory OUT BATCH ACCUMULATION
"""

import itertools
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from .tiny import TinyPairs, tiny_trainer

STRATEGIES = {
    "uniform": {"strategy": "uniform"},
    "uniform_measured": {"strategy": "uniform", "measure_gradients": True},
    "pos": {"strategy": "pos", "strategy_options": {"preset": "paper", "meo": False}},
    "pos_meo": {"strategy": "pos", "strategy_options": {"preset": "paper"}},
}
OPTIMIZERS = {"sgd": "sgd", "adamw": "adamw_torch_fused"}
COMBINATIONS = [
    *itertools.product(("fixmatch", "unimatch_v2"), ("uniform", "pos", "pos_meo"), OPTIMIZERS),
    *itertools.product(("unimatch_v1",), ("uniform", "uniform_measured", "pos_meo"), ("sgd",)),
]


def main(out: Path, batch: int, accumulation: int) -> None:
    weights = {}
    for method, strategy, optimizer in COMBINATIONS:
        with tempfile.TemporaryDirectory() as folder:
            trainer = tiny_trainer(
                folder,
                method=method,
                train_dataset=TinyPairs(second_draw=method == "unimatch_v1"),
                optim=OPTIMIZERS[optimizer],
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                **STRATEGIES[strategy],
            )
            trainer.train()
        for parameter, value in trainer.model.named_parameters():
            weights[f"{method}/{strategy}/{optimizer}/{parameter}"] = value.detach().clone()
    if trainer.accelerator.is_main_process:
        save_file(weights, out)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
