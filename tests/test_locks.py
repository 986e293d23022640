"""A folder has one writer: the second is told who the first is, and a dead one holds nothing."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from pos_hf.errors import InputError, TrainingStopped
from pos_hf.locks import LOCK_FILE, check_held, locked
from tests.training.killing import fork


def hold(folder: Path) -> None:
    with locked(folder):
        (folder / "held").touch()
        time.sleep(300)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path / "run"."""
    folder = tmp_path / "run"
    child = fork(hold, folder)
    while not (folder / "held").exists():
        time.sleep(0.01)
    yield child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    folder = tmp_path / "run"
    said = f"run is in use by process {holder} on .+ since 20"
    with pytest.raises(InputError, match=said) as refusal, locked(folder):
        pass
    assert "\n" not in str(refusal.value)
    assert (folder / LOCK_FILE).exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / LOCK_FILE).read_text()


def test_a_process_may_hold_its_folder_twice_and_leaves_nothing_of_its_own(tmp_path):
    folder = tmp_path / "a" / "run"
    with locked(folder):
        with locked(folder):
            pass
        check_held(folder)
        assert (folder / LOCK_FILE).exists()
    assert not (tmp_path / "a").exists()
    folder.mkdir(parents=True)
    with locked(folder):
        pass
    assert folder.exists() and not list(folder.iterdir())


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_was_removed_or_replaced_is_noticed(tmp_path, replaced):
    folder = tmp_path / "run"
    with locked(folder):
        shutil.rmtree(folder)
        if replaced:
            folder.mkdir()
            (folder / LOCK_FILE).write_text("another's")
        with pytest.raises(TrainingStopped, match="removed or replaced"):
            check_held(folder)
    assert not replaced or (folder / LOCK_FILE).read_text() == "another's"


def test_of_many_that_start_at_once_one_has_the_folder_at_any_time(tmp_path):
    """Each that gets it must find it without another's mark; the end of one may let in the next."""
    folder = tmp_path / "run"

    def enter(start: float) -> None:
        time.sleep(max(0.0, start - time.monotonic()))
        for _ in range(20):
            try:
                with locked(folder):
                    (folder / "mark").mkdir()
                    time.sleep(0.01)  # long enough for another to come, on a busy machine too
                    (folder / "mark").rmdir()
            except InputError:
                (tmp_path / f"refused-{os.getpid()}").touch()

    children = [fork(enter, time.monotonic() + 0.2) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert list(tmp_path.glob("refused-*")) and not list(folder.glob("*"))
