"""FSDP2 through accelerate: checkpoints and exports of sharded weights. Trajectories: test_equality."""

import pytest
from safetensors.torch import load_file

from tests.launching import launch

from .tiny import tiny_model


@pytest.mark.slow
def test_a_sharded_run_resumes_bit_for_bit_and_exports_whole_weights(tmp_path):
    launch("tests.training.fsdp_resume", tmp_path, processes=2)
    for folder in (tmp_path, tmp_path / "student"):
        exported = load_file(folder / "model.safetensors")
        assert {name: value.shape for name, value in exported.items()} == {
            name: value.shape for name, value in tiny_model().state_dict().items()
        }
