"""BatchNorm over all processes. PyTorch computes it on GPUs alone, so what is made is looked at here."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pos_hf.errors import InputError
from pos_hf.training.engines import synchronise_batch_norm

from .resuming import ForgetfulSegmenter
from .tiny import TinyConfig


def arguments(asked: bool, processes: int, device: str) -> Any:
    return SimpleNamespace(sync_batch_norm=asked, world_size=processes, device=torch.device(device))


def test_every_batchnorm_becomes_synchronised_and_keeps_weights_names_and_evaluation():
    model = ForgetfulSegmenter(TinyConfig(num_labels=5)).eval()
    before, images = model.state_dict(), torch.randn(2, 3, 8, 8)
    expected = model(images).logits
    synchronised = synchronise_batch_norm(model, arguments(True, 4, "cuda"))
    assert isinstance(synchronised.norm, nn.SyncBatchNorm)
    after = synchronised.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(synchronised(images).logits, expected)


@pytest.mark.parametrize(("asked", "processes"), [(False, 4), (True, 1)])
def test_it_stays_as_it_is_unasked_or_in_one_process(asked, processes):
    model = ForgetfulSegmenter(TinyConfig(num_labels=5))
    assert type(synchronise_batch_norm(model, arguments(asked, processes, "cuda")).norm) is nn.BatchNorm2d


def test_cpus_are_refused():
    with pytest.raises(InputError, match="sync_batch_norm needs GPUs"):
        synchronise_batch_norm(nn.BatchNorm2d(3), arguments(True, 2, "cpu"))
