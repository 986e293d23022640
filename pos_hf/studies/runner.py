"""Starts the runs of a study, each under `accelerate launch`, and leaves what is done alone."""

import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice

from tqdm import tqdm

from pos_hf.studies.plan import PlannedRun, Study


def run_study(study: Study, jobs: int = 1) -> list[PlannedRun]:
    """Run what is not done yet; a run that was interrupted goes on from its last checkpoint.

    Args:
        study: what to run.
        jobs: runs at the same time.

    Returns:
        The runs that failed; the last line of their log file says why.
    """
    todo = [run for run in study.runs if not run.is_done]
    waiting = iter(todo)
    failed = []
    progress = tqdm(total=len(study.runs), initial=len(study.runs) - len(todo), desc=study.title, unit="run")
    with progress, ThreadPoolExecutor(jobs) as pool:
        # the next run is started here, never by the pool: an interrupted study starts nothing more
        running = {pool.submit(_launch, run, study.num_processes): run for run in islice(waiting, jobs)}
        while running:
            for result in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(result)
                progress.set_postfix_str(f"{run.arm}, {run.column}, seed {run.seed}")
                progress.update()
                if result.result() != 0:
                    failed.append(run)
                for following in islice(waiting, 1):
                    running[pool.submit(_launch, following, study.num_processes)] = following
    return failed


def _launch(run: PlannedRun, num_processes: int) -> int:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(num_processes)]
    # 0: whichever port is free
    command += ["--main_process_port", "0", "--module", "pos_hf", "train", str(run.config_file)]
    command += ["--resume_from_checkpoint", "latest", "--overwrite"]
    with run.log_file.open("w") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
