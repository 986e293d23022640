"""A run that goes on from a checkpoint ends, bit for bit, like the one that was never interrupted."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pos_hf.errors import InputError
from pos_hf.training import POSTrainer
from tests.launching import launch

from .resuming import CASES, INTERRUPTED, METHODS, SaveAt, digests, make_trainer, run_case


def assert_resumed_exactly(found: dict[str, dict[str, str]]) -> None:
    assert found.keys() == {"whole", *map(str, INTERRUPTED)}
    for step in INTERRUPTED:
        for part, digest in found["whole"].items():
            assert found[str(step)][part] == digest, f"{part} after a resume from step {step}"


@pytest.mark.parametrize("case", [("unimatch_v1", 2, 0), ("unimatch_v2", 2, 0), ("fixmatch", 1, 2)], ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, case):
    assert_resumed_exactly(run_case(tmp_path, *case))


@pytest.fixture(scope="module", params=[1, 2], ids="{} processes".format)
def every_case(request, tmp_path_factory) -> list[dict]:
    """What each rank found for every case."""
    out = tmp_path_factory.mktemp("digests")
    launch("tests.training.resuming", out, processes=request.param)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(request.param)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_resumed_run_is_the_uninterrupted_one_in_every_layout(every_case, case):
    for rank in every_case:
        assert_resumed_exactly(rank[str(case)])


@pytest.mark.slow
def test_another_process_trains_the_same_bits(every_case, tmp_path):
    case = CASES[0]
    other = every_case[1][str(case)] if len(every_case) == 2 else run_case(tmp_path, *case)
    for part in ("student", "optimizer", "scheduler"):
        assert every_case[0][str(case)]["whole"][part] == other["whole"][part]


def test_the_loss_scale_goes_on_where_it_was(tmp_path):
    def train(folder: Path, **start: str) -> POSTrainer:
        trainer = make_trainer(str(folder), "unimatch_v2", callbacks=[SaveAt((3,))])
        # what fp16 would bring on an accelerator; it grows at steps 2, 4, 6 and 8
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        trainer.train(**start)
        return trainer

    whole = train(tmp_path)
    resumed = train(tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert whole.accelerator.scaler.get_scale() == 2.0**14
    assert resumed.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    assert digests(resumed) == digests(whole)


def test_a_trainer_goes_on_with_its_own_run_alone(tmp_path):
    make_trainer(str(tmp_path), "fixmatch", callbacks=[SaveAt((1,))], max_steps=2).train()
    for other, words in (
        (make_trainer(str(tmp_path), "unimatch_v2", max_steps=2), r'method "fixmatch" \(now "unimatch_v2"\)'),
        (make_trainer(str(tmp_path), "fixmatch", max_steps=2, seed=5), r"seed 42 \(now 5\)"),
    ):
        before = nn.utils.parameters_to_vector(other.model.parameters()).clone()
        with pytest.raises(InputError, match=words):
            other.train(resume_from_checkpoint=True)
        assert torch.equal(nn.utils.parameters_to_vector(other.model.parameters()), before)


@pytest.fixture
def deterministic(monkeypatch):
    """Take back what `full_determinism` sets for the whole process."""
    for name in (
        "CUDA_LAUNCH_BLOCKING",
        "CUBLAS_WORKSPACE_CONFIG",
        "ASCEND_LAUNCH_BLOCKING",
        "HCCL_DETERMINISTIC",
        "FLASH_ATTENTION_DETERMINISTIC",
    ):
        monkeypatch.setenv(name, "")
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@pytest.mark.parametrize("method", METHODS)
def test_full_determinism_makes_two_runs_bit_equal(tmp_path, deterministic, method):
    ends = []
    for workers in (0, 2):
        trainer = make_trainer(
            str(tmp_path / str(workers)), method, full_determinism=True, dataloader_num_workers=workers
        )
        trainer.train()
        assert torch.are_deterministic_algorithms_enabled()
        ends.append(digests(trainer))
    assert ends[0] == ends[1]
