"""A run's files by name, and files that are whole or absent: written aside, brought to the disk, renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pos_hf.errors import TrainingStopped

RUN_FILE = "run.json"  # the settings
SCORES_FILE = "metrics.json"
COUNTS_FILE = "per_image.npz"
STUDENT_FOLDER = "student"  # beside the exported teacher
INCOMPLETE = "_incomplete"  # an upload to the Hub leaves out what begins with an underscore

# torch names neither file nor cause: a full disk is "inline_container.cc:672] . unexpected pos 576 vs 534"
TORCH_CANNOT_WRITE = ("inline_container", "iostream error")


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files replace those of `folder` when the block ends well, each at once.

    Args:
        folder: made where it is missing; one process at a time writes to it.

    Raises:
        TrainingStopped: they cannot be written; `folder` is as it was.
    """
    aside = folder / INCOMPLETE
    with explained(folder):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            yield aside
            sync(aside)
            for path in sorted(path for path in aside.rglob("*") if path.is_file()):
                target = folder / path.relative_to(aside)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
            sync(folder, recursive=False)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Say in one sentence that `target` cannot be written, whether Python, torch or safetensors noticed it.

    Raises:
        TrainingStopped: in place of the error of the block.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        by_torch = isinstance(error, RuntimeError)
        if by_torch and not any(part in str(error) for part in TORCH_CANNOT_WRITE):
            raise
        existing = next(folder for folder in target.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(existing).free / 2**20
        why = "" if by_torch else f"{getattr(error, 'strerror', None) or error}; "
        raise TrainingStopped(
            f"{target} cannot be written ({why}{free:.0f} MiB are free there): what was there before is as "
            "it was, so make room or mend the permissions, then resume"
        ) from error


def sync(folder: Path, recursive: bool = True) -> None:
    """Wait until a folder's entries, and the contents of everything in it if `recursive`, are on the disk."""
    for path in [*folder.rglob("*"), folder] if recursive else [folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
