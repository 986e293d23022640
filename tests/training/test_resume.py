"""A run that goes on from a checkpoint ends, bit for bit, like the one that was never interrupted."""

import json

import pytest

from tests.launching import launch

from .resuming import CASES, INTERRUPTED, run_case


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
