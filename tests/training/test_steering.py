"""What the scores of a run steer: its learning rate, and when it stops; and where it goes on from."""

import pytest
import torch
from torch import nn

from .resuming import SaveAt
from .tiny import tiny_model, tiny_rows, tiny_trainer


def trainer_of(folder, **arguments):
    scored = {"eval_dataset": tiny_rows(), "eval_strategy": "steps", "eval_steps": 1}
    return tiny_trainer(str(folder), tiny_model(), method="fixmatch", **scored | arguments)


@pytest.mark.parametrize("options", [None, {"mode": "min"}], ids=["rising", "said otherwise"])
def test_a_learning_rate_that_waits_for_scores_waits_for_them_to_rise(tmp_path, options):
    halved = {"factor": 0.5, "patience": 0}
    trainer = trainer_of(
        tmp_path,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs=halved | (options or {}),
        learning_rate=0.5,
        max_steps=12,
    )
    trainer.train()
    logs = trainer.state.log_history
    scores = [entry["eval_mean_iou"] for entry in logs if "eval_mean_iou" in entry]
    rates = [entry["learning_rate"] for entry in logs if "learning_rate" in entry]
    expected = {}
    for mode in ("max", "min"):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, **halved)
        expected[mode] = []
        for score in scores:
            expected[mode].append(optimizer.param_groups[0]["lr"])
            schedule.step(score)
    assert expected["max"] != expected["min"]
    assert rates == expected[options["mode"] if options else "max"]


def test_early_stopping_goes_on_counting_where_a_run_is_resumed(tmp_path):
    for checkpoint in (None, "checkpoint-2", "checkpoint-4"):
        trainer = trainer_of(tmp_path, learning_rate=1e-12, max_steps=9, early_stopping_patience=3)
        trainer.train(resume_from_checkpoint=checkpoint and str(tmp_path / checkpoint))
        assert trainer.state.global_step == 4  # the first score is the best, and three are no better


def test_a_run_that_has_ended_takes_no_further_step(tmp_path):
    ended = trainer_of(tmp_path, max_steps=2, callbacks=[SaveAt((2,))])  # amid an epoch
    ended.train()
    resumed = trainer_of(tmp_path, max_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2
    for own, other in zip(resumed.networks, ended.networks, strict=True):
        vectors = [nn.utils.parameters_to_vector(network.parameters()) for network in (own, other)]
        assert torch.equal(*vectors)
