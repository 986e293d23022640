"""File systems that take less than a run needs. No test lives here."""

import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses longer files, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_a_small_disk(folder: Path, kilobytes: int, then: Callable[[], None]) -> None:
    """Mount a file system of so many KiB there, for this process alone; exits with 77 where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, private, recursive = 0x00020000, 1 << 18, 1 << 14
    options = f"size={kilobytes}k".encode()
    if (
        libc.unshare(new_mounts)
        or libc.mount(b"none", b"/", None, private | recursive, None)
        or libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, options)
    ):
        os._exit(77)
    then()
