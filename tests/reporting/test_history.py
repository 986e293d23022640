"""Reading a run's folder."""

import math

import pytest

from pos_hf.errors import InputError
from pos_hf.reporting import read_runs


def test_a_series_holds_the_finite_values_with_their_steps(make_run) -> None:
    (run,) = read_runs([make_run("run")])
    run.log.append({"step": 310, "cosine": math.nan})
    steps, values = run.series("cosine")
    assert steps.tolist() == list(range(10, 301, 10)) and len(values) == 30
    assert len(run.series("no such key")[0]) == 0


def test_runs_are_named_by_as_many_folders_as_tell_them_apart(make_run) -> None:
    names = [run.name for run in read_runs([make_run("a/last"), make_run("b/last"), make_run("c")])]
    assert [name.split("/")[-2:] for name in names[:2]] == [["a", "last"], ["b", "last"]]
    assert read_runs([make_run("d")])[0].name == "d"


def test_a_folder_without_a_log_or_given_twice_is_refused(make_run, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no trainer_state\.json"):
        read_runs([tmp_path])
    run = make_run("run")
    with pytest.raises(InputError, match="twice"):
        read_runs([run, run])
