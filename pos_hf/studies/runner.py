"""Starts the runs of a study, each under `accelerate launch`, and leaves what is done alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from tqdm import tqdm

from pos_hf.errors import InputError
from pos_hf.locks import locked
from pos_hf.studies.plan import PlannedRun, Study
from pos_hf.studies.records import add_record

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_STOP = 120


def run_study(study: Study, jobs: int = 1) -> list[PlannedRun]:
    """Run what is not done yet; a run that was interrupted goes on from its last checkpoint.

    Args:
        study: what to run.
        jobs: runs at the same time.

    Returns:
        The runs that failed; the last line of their log file says why.

    Raises:
        InputError: another process runs the study.
        SystemExit: SIGTERM or SIGHUP came; the runs were stopped, with a checkpoint each.
    """
    failed = []
    trainings = Trainings(study.num_processes)
    with locked(study.folder), exit_on_signals():
        for run in study.runs:
            if run.is_done and run.record is None:  # an interruption came before its record
                with suppress(InputError):  # a damaged one is named below the table
                    record(study, run)
        todo = [run for run in study.runs if not run.is_done]
        waiting = iter(todo)
        done = len(study.runs) - len(todo)
        progress = tqdm(total=len(study.runs), initial=done, desc=study.title, unit="run")
        with progress, ThreadPoolExecutor(jobs) as pool, trainings:
            # the next run is started here, never by the pool: an interrupted study starts nothing more
            running = {pool.submit(trainings.run, run): run for run in islice(waiting, jobs)}
            while running:
                for result in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(result)
                    progress.set_postfix_str(f"{run.arm}, {run.column}, seed {run.seed}")
                    progress.update()
                    if result.result() != 0:
                        failed.append(run)
                    else:
                        record(study, run)
                    for following in islice(waiting, 1):
                        running[pool.submit(trainings.run, following)] = following
    return failed


def record(study: Study, run: PlannedRun) -> None:
    """Add a finished run's scores to those that the study keeps, where it keeps any."""
    if study.scores_file is not None:
        names = {"arm": run.arm, "column": run.column, "seed": run.seed, "settings": run.fingerprint}
        add_record(study.scores_file, names, run.folder)


class Trainings:
    """The trainings that a study has started; at the end of a `with` block they are stopped.

    Args:
        num_processes: of each.
    """

    def __init__(self, num_processes: int) -> None:
        self.num_processes = num_processes
        self._lock = threading.Lock()
        self._stopping = False
        self._started: list[subprocess.Popen] = []

    def run(self, run: PlannedRun) -> int:
        """Train and return the exit code."""
        command = [sys.executable, "-m", "accelerate.commands.launch"]
        # 0: whichever port is free
        command += ["--num_processes", str(self.num_processes), "--main_process_port", "0"]
        command += ["--module", "pos_hf", "train", str(run.config_file)]
        command += ["--resume_from_checkpoint", "latest", "--overwrite"]
        with run.log_file.open("w") as log:
            with self._lock:
                if self._stopping:
                    return 128 + signal.SIGTERM
                # a group of its own: the launcher of one process passes no signal on
                process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
                self._started.append(process)
            return process.wait()

    def __enter__(self) -> "Trainings":
        return self

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._stopping = True
            groups = [process.pid for process in self._started if process.poll() is None]
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
        # a launcher that is gone leaves its training to write the checkpoint
        deadline = time.monotonic() + SECONDS_TO_STOP
        while any(map(_is_alive, groups)) and time.monotonic() < deadline:
            time.sleep(0.1)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit for the length of a block (only a main thread can)."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # nohup ignores SIGHUP, which stays so
    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, leave) for number in taken}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
