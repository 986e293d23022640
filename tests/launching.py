"""Runs a module of the tests in real processes under torch's launcher. No test lives here."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]


def launch(module: str, *arguments: object, processes: int) -> None:
    """Run `python -m module arguments` in one plain or several gloo processes, and show its errors.

    Args:
        module: dotted name, importable from the repository's root; it ends with `run_rank`.
        arguments: of the command line.
        processes: 1 runs without a launcher.
    """
    command, options = command_of(module, *arguments, processes=processes)
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr[-4000:]


def command_of(module: str, *arguments: object, processes: int) -> tuple[list[str], dict[str, Any]]:
    """The command line of `launch`, and where and in which environment it runs."""
    launcher = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--master_port", str(port)]
    command = [sys.executable, *launcher, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return command, {"cwd": ROOT, "env": environment}


def run_rank(main: Callable[..., int | None], *arguments: object) -> NoReturn:
    """Run a launched module's `main` and leave as multiprocessing's children do, without an interpreter exit.

    A gloo worker announces a result before it drops the tensors of the work. If it waits for the
    interpreter's lock to drop one while the interpreter goes down, it is ended there, and std::terminate
    aborts the process. A barrier does not wait for that worker, and `destroy_process_group` joins it only if
    nothing else holds the group: DTensor's caches do.

    Args:
        main: returns the exit code, None for 0; what it raises is shown, and the code is 1.
        arguments: of `main`.
    """
    code = main(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
