"""Every result file is whole or absent, whatever part of it a full disk still takes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pos_hf.errors import InputError, TrainingStopped
from pos_hf.files import write_text
from pos_hf.hub import write_model_card
from pos_hf.reporting import write_examples, write_report
from pos_hf.reporting.report import keep_other_files
from pos_hf.studies import PlannedRun, Study, write_tables
from tests.training.disks import files_no_larger_than, on_a_small_disk
from tests.training.killing import fork

RESULTS = (
    "README.md",
    "report.html",
    "examples",
    "table.md",
    "table.csv",
    "table.tex",
    "table.html",
    "table.svg",
)
FREE = (0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Room that is left, as a share of what the results take."""


@pytest.fixture
def run(make_run) -> Path:
    """Without a log, so that its report has no curves to draw."""
    folder = make_run("run", unlabeled=False)
    (folder / "trainer_state.json").write_text('{"log_history": []}')
    shutil.rmtree(folder / "worst")
    return folder


def write_results(folder: Path) -> None:
    """What a run writes last, and a study of it."""
    rows = [
        {"id": name, "image": Image.new("RGB", (40, 40)), "mask": Image.new("L", (40, 40))} for name in "ab"
    ]
    write_examples(folder / "examples", rows, [np.ones((40, 40), np.uint8)] * 2, ["x", "y"], [[0, 0, 0]] * 2)
    write_model_card(folder)
    write_report([folder], folder / "report.html")
    write_tables(Study("t", folder, "a", 1, ["a"], ["c"], [PlannedRun("a", "c", 0, folder, {}, "")], {}))


def results(folder: Path) -> dict[str, bytes]:
    files = {
        path for name in RESULTS for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()
    }
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def empty(folder: Path) -> Path:
    for name in RESULTS:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
    return folder


def test_on_a_full_disk_results_are_whole_or_absent_and_made_when_there_is_room(run, tmp_path):
    source = empty(run)
    disk, said = tmp_path / "disk", tmp_path / "said"
    disk.mkdir()

    def fill() -> None:
        run = disk / "run"
        shutil.copytree(source, run)
        write_results(run)
        whole = results(run)
        taken = sum(map(len, whole.values()))
        for free in FREE:
            empty(run)
            state = os.statvfs(disk)
            with (disk / "ballast").open("wb") as ballast:
                ballast.write(bytes(state.f_bavail * state.f_frsize - int(free * taken)))
            with pytest.raises(TrainingStopped, match="cannot be written") as stop:
                write_results(run)
            assert "\n" not in str(stop.value)
            left = results(run)
            assert left.items() <= whole.items(), free
            assert not list(run.glob("_incomplete*"))
            said.write_text(f"{len(left)} {len(whole)}")
            (disk / "ballast").unlink()
        write_results(run)
        assert results(run) == whole

    _, status = os.waitpid(fork(on_a_small_disk, disk, 4000, fill), 0)
    if os.waitstatus_to_exitcode(status) == 77:
        pytest.skip("mounting is not allowed here")
    assert os.waitstatus_to_exitcode(status) == 0
    left, whole = map(int, said.read_text().split())
    assert 0 < left < whole  # the last disk took some of them


WRITERS: dict[str, Callable[[Path], object]] = {
    "README.md": write_model_card,
    "report.html": lambda run: write_report([run], run / "report.html"),
    "landscape.jsonl": lambda run: write_text(run / "landscape.jsonl", "{}\n" * 1000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_leaves_the_older_file(run, name):
    (run / name).write_text('<meta name="generator" content="pos-hf report">')  # may be replaced
    before = (run / name).read_bytes()
    for size in (0, 700):
        with files_no_larger_than(size), pytest.raises(TrainingStopped, match="cannot be written"):
            WRITERS[name](run)
        assert (run / name).read_bytes() == before
    WRITERS[name](run)
    assert len((run / name).read_bytes()) > 700


def test_what_an_older_version_left_of_a_report_is_replaced(run):
    page = run / "report.html"
    write_report([run], page)
    whole = page.read_bytes()
    for left in (0, 30, 60, 90, 1500):
        page.write_bytes(whole[:left])
        keep_other_files(page)
    write_report([run], page)
    assert page.read_bytes() == whole
    page.write_bytes(b"<!doctype html>\n<title>mine")
    with pytest.raises(InputError, match="no earlier report"):
        keep_other_files(page)
