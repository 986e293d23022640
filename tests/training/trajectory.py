"""Trains every combination of the equality test in this process's layout and saves the weights.

usage: python -m tests.training.trajectory OUT BATCH ACCUMULATION
"""

import itertools
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from .tiny import tiny_trainer

STRATEGIES = {
    "uniform": ("uniform", None),
    "pos": ("pos", {"preset": "paper", "meo": False}),
    "pos_meo": ("pos", {"preset": "paper"}),
}
METHODS = ("fixmatch", "unimatch_v2")
OPTIMIZERS = {"sgd": "sgd", "adamw": "adamw_torch_fused"}


def main(out: Path, batch: int, accumulation: int) -> None:
    weights = {}
    for method, strategy, optimizer in itertools.product(METHODS, STRATEGIES, OPTIMIZERS):
        name, options = STRATEGIES[strategy]
        with tempfile.TemporaryDirectory() as folder:
            trainer = tiny_trainer(
                folder,
                method=method,
                strategy=name,
                strategy_options=options,
                optim=OPTIMIZERS[optimizer],
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
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
