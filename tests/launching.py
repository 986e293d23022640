"""Runs a module of the tests in real processes under torch's launcher. No test lives here."""

import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pos_hf.cli.parsing import importing

ROOT = Path(__file__).parents[1]


def launch(module: str, *arguments: object, processes: int, nodes: int = 1) -> None:
    """Run a module's `main` in one plain or several gloo processes, and show its errors.

    Args:
        module: dotted name, importable from the repository's root, of a module with a `main`.
        arguments: of `main`, which gets them as text.
        processes: 1 runs without a launcher.
        nodes: launchers that share the processes, as on so many machines.
    """
    command, options = command_of(module, *arguments, processes=processes, nodes=nodes)
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    ranks = [["--node_rank", str(rank)] if nodes > 1 else [] for rank in range(nodes)]
    launchers = [subprocess.Popen([*command[:3], *rank, *command[3:]], **options) for rank in ranks]
    errors = [launcher.communicate()[1] for launcher in launchers]
    assert not any(launcher.returncode for launcher in launchers), "".join(errors)[-4000:]


def command_of(
    module: str, *arguments: object, processes: int, nodes: int = 1
) -> tuple[list[str], dict[str, Any]]:
    """The command line of `launch`, and where and in which environment it runs."""
    launcher = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = ["-m", "torch.distributed.run", "--nnodes", str(nodes)]
        launcher += ["--nproc_per_node", str(processes // nodes), "--master_addr", "127.0.0.1"]
        launcher += ["--master_port", str(port)]
    command = [sys.executable, *launcher, "-m", "tests.launching", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return command, {"cwd": ROOT, "env": environment}


def run_rank(module: str, *arguments: str) -> NoReturn:
    """Run a launched module's `main` and leave as multiprocessing's children do, without an interpreter exit.

    A gloo worker announces a result before it drops the tensors of the work. If it waits for the
    interpreter's lock to drop one while the interpreter goes down, it is ended there, and std::terminate
    aborts the process. A barrier does not wait for that worker, and `destroy_process_group` joins it only if
    nothing else holds the group: DTensor's caches do.

    Args:
        module: its `main` returns the exit code, None for 0; what it raises is shown, and the code is 1.
        arguments: of `main`.
    """
    with importing():
        main = import_module(module).main
    code = main(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    run_rank(*sys.argv[1:])
