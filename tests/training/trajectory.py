"""Trains every combination of the equality test in this process's layouts and saves the weights.

usage: python -m tests.launching tests.training.trajectory OUT ENGINE BATCHxACCUMULATION...

Weights go to OUT/BATCHxACCUMULATION.safetensors.
"""

import itertools
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from .fsdp import fsdp2_arguments, pretend_to_be_gpus
from .tiny import TinyPairs, tiny_trainer

STRATEGIES = {
    "uniform": {"strategy": "uniform"},
    "uniform_measured": {"strategy": "uniform", "measure_gradients": True},
    "pos": {"strategy": "pos", "strategy_options": {"min_weight": 0, "meo": False}},
    "pos_meo": {"strategy": "pos", "strategy_options": {"min_weight": 0}},
}
OPTIMIZERS = {"sgd": "sgd", "adamw": "adamw_torch_fused"}
COMBINATIONS = [
    *itertools.product(("fixmatch", "unimatch_v2"), ("uniform", "pos", "pos_meo"), OPTIMIZERS),
    *itertools.product(("unimatch_v1",), ("uniform", "uniform_measured", "pos_meo"), ("sgd",)),
]


def main(out: str, engine: str, *splits: str) -> None:
    if engine == "fsdp2":
        pretend_to_be_gpus()
    for split in splits:
        batch, accumulation = map(int, split.split("x"))
        train(Path(out) / f"{split}.safetensors", batch, accumulation, engine)


def train(out: Path, batch: int, accumulation: int, engine: str) -> None:
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
                **(fsdp2_arguments() if engine == "fsdp2" else {}),
            )
            trainer.train()
        for parameter, value in trainer.accelerator.get_state_dict(trainer.model).items():
            weights[f"{method}/{strategy}/{optimizer}/{parameter}"] = value.detach().clone()
    if trainer.accelerator.is_main_process:
        save_file(weights, out)
