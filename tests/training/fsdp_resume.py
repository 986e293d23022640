"""Two FSDP2 processes train four steps, and again from the checkpoint of the second. Run by a launcher.

usage: python -m tests.launching tests.training.fsdp_resume FOLDER
"""

from pathlib import Path
from typing import Any

import torch

from pos_hf.training import POSTrainer

from .fsdp import fsdp2_arguments, pretend_to_be_gpus
from .tiny import tiny_model, tiny_trainer


def sharded_trainer(folder: Path) -> POSTrainer:
    model = tiny_model()
    model.unused.requires_grad_(False)  # torch saves no optimizer state of a parameter that no loss uses
    return tiny_trainer(
        str(folder),
        model,
        method="fixmatch",
        strategy_options={"min_weight": 0},
        per_device_train_batch_size=2,
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        **fsdp2_arguments(),
    )


def weights(trainer: POSTrainer) -> dict[str, Any]:
    return {
        f"{role}.{name}": value
        for role, model in (("student", trainer.model), ("teacher", trainer.teacher.model))
        for name, value in trainer.accelerator.get_state_dict(model).items()
    }


def main(out: str) -> None:
    folder = Path(out)
    pretend_to_be_gpus()
    whole = sharded_trainer(folder)
    whole.train()
    resumed = sharded_trainer(folder)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    resumed.save_model()
    expected = weights(whole)  # whole on rank 0 alone
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name]), name
