"""A folder that one process writes to: the other is refused and told who holds it."""

import errno
import fcntl
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pos_hf.errors import InputError, TrainingStopped

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_held: dict[Path, IO[str]] = {}  # of this process, by the folder's resolved path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for the length of a block; inside of it the same process may do so again.

    The kernel keeps the lock, also between the machines of a shared file system, and frees it when the
    process ends, however it ends. It is not inherited by the data's workers.

    Args:
        folder: made where it is missing, and removed again if the block leaves it empty.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    path = folder.resolve()
    if path in _held:
        yield
        return
    made = [parent for parent in [path, *path.parents] if not parent.exists()]
    try:
        file = _acquire(path, folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): choose another output_dir, or mend its "
            "permissions"
        ) from error
    _held[path] = file
    try:
        yield
    finally:
        del _held[path]
        with suppress(OSError):  # the disk may have become read-only
            if _lies_in(file, path):
                (path / LOCK_FILE).unlink()
        file.close()
        with suppress(OSError):  # not empty
            for parent in made:
                parent.rmdir()


def check_held(folder: Path) -> None:
    """Make sure that a folder is still the one that this process has locked, if it has.

    Raises:
        TrainingStopped: it was removed, or another took its place.
    """
    file = _held.get(folder.resolve())
    if file is not None and not _lies_in(file, folder):
        raise TrainingStopped(
            f"{folder} was removed or replaced while the run wrote to it, which has ended without writing "
            "more: start it again"
        )


def _acquire(path: Path, folder: Path) -> IO[str]:
    while True:
        path.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the folder went with its last holder
            file = (path / LOCK_FILE).open("a+")
            _lock(file, folder)
            if _lies_in(file, path):
                break
            file.close()  # its holder has just removed it
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    return file


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning("%s is not locked against a second process: %s", folder, error.strerror)
            return
        file.seek(0)
        holder = file.read() or "another process"
        file.close()
        raise InputError(
            f"{folder} is in use by {holder}: wait for its end, or choose another output_dir"
        ) from error


def _lies_in(file: IO[str], folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), (folder / LOCK_FILE).stat())
    except OSError:  # it is gone, or a file
        return False
