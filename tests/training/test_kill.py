"""A run that is killed again and again, also while it writes a checkpoint, ends like one that never was."""

import json
import signal

import pytest

from tests.launching import launch

pytestmark = pytest.mark.slow

NUM_KILLS = 50


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("killed")
    launch("tests.training.killing", out, NUM_KILLS, processes=1)
    return json.loads((out / "report.json").read_text())


def test_the_kills_meet_checkpoints_half_written_and_steps(report):
    assert [kill["code"] for kill in report["kills"]] == [-signal.SIGKILL] * NUM_KILLS
    while_writing = sum(kill["while_writing"] for kill in report["kills"])
    assert 5 <= while_writing < NUM_KILLS


def test_every_life_goes_on_from_a_checkpoint_of_the_uninterrupted_run(report):
    assert [kill["newest"] for kill in report["kills"] if not kill["as_uninterrupted"]] == []
    steps = [int(kill["newest"].partition("-")[2]) for kill in report["kills"] if kill["newest"]]
    assert steps == sorted(steps)
    assert len(set(steps)) > 5


def test_the_end_is_the_uninterrupted_one(report):
    assert report["last_code"] == 0
    whole, killed = report["ends"]
    assert killed == whole
    assert report["left"] == ["checkpoint-59", "checkpoint-60", "digests.json"]
