"""What all commands share: arguments that fail in one sentence, and files that are never replaced unasked."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pos_hf.errors import InputError
from pos_hf.values import check_intervals

INTERVALS = {
    "batch_size": "[1, 65536]",
    "batches": "[16, 4096]",
    "num_workers": "[0, 1024]",
    "threshold": "[0, 1]",
    "multiple": "[1, 16384]",
    "window": "[2, 65536]",  # a window's stride is two thirds of it
    "scales": "(0, 100]",
    "points": "[1, 1001]",
    "radius": "(0, 1e6]",
    "seed": "[0, 4294967295]",
    "jobs": "[1, 1024]",
    "train_images": "[1, inf)",
    "test_images": "[1, inf)",
}


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError, also for numbers outside of `INTERVALS`."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help lists the arguments")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, and check the numbers."""
        parsed = super().parse_args(args, namespace)
        check_intervals(vars(parsed), INTERVALS)
        return parsed


def keep_existing(paths: Iterable[Path], remedy: str) -> None:
    """Make sure that nothing of a user's is replaced.

    Args:
        paths: files and folders that are about to be written.
        remedy: what to do where one exists.

    Raises:
        InputError: one exists, or lies below a file.
    """
    for path in paths:
        if path.exists():
            raise InputError(f"'{path}' exists and is kept: {remedy}")
        for folder in path.parents:
            if folder.exists() and not folder.is_dir():
                raise InputError(f"'{path}' cannot be written, because '{folder}' is a file: {remedy}")
