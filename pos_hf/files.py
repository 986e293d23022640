"""Files that are whole or absent: written aside, brought to the disk, renamed. Their names are elsewhere."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pos_hf.errors import InputError, TrainingStopped, first_sentence

MANIFEST = "manifest.json"  # size and SHA-256 of each file of a checkpoint, or of an exported model
INCOMPLETE = "_incomplete"  # an upload to the Hub leaves out what begins with an underscore

# torch names neither file nor cause: a full disk is "inline_container.cc:672] . unexpected pos 576 vs 534"
TORCH_CANNOT_WRITE = ("inline_container", "iostream error")


@contextmanager
def written_aside(folder: Path, scratch: str = INCOMPLETE) -> Iterator[Path]:
    """A scratch folder whose files replace those of `folder` when the block ends well, each at once.

    Args:
        folder: made where it is missing.
        scratch: name of the scratch folder in it; one process at a time writes there, and what a killed one
            left is removed.

    Raises:
        TrainingStopped: they cannot be written; `folder` is as it was.
    """
    aside = folder / scratch
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


def write_text(file: Path, text: str) -> None:
    """Write one file of text, whole or not at all.

    Args:
        file: what is there is replaced.
        text: stored in UTF-8.

    Raises:
        TrainingStopped: it cannot be written; what was there is as it was.
    """
    # a name of its own: a report is drawn while the run it is about writes a checkpoint
    with written_aside(file.parent, f"{INCOMPLETE}_{file.name}") as aside:
        (aside / file.name).write_text(text, encoding="utf-8")


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
            "it was, so make room or mend the permissions, then resume the training or repeat the command"
        ) from error


def sync(folder: Path, recursive: bool = True) -> None:
    """Wait until a folder's entries, and the contents of everything in it if `recursive`, are on the disk."""
    for path in [*folder.rglob("*"), folder] if recursive else [folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(file: Path, kind: type = dict) -> Any:
    """Read a JSON file that a program wrote.

    Args:
        file: exists.
        kind: what its outermost value must be, dict or list.

    Raises:
        InputError: it is damaged.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file, first_sentence(error)) from error
    if not isinstance(value, kind):
        raise damaged(file, f"it holds no JSON {'object' if kind is dict else 'array'}")
    return value


def damaged(file: Path, why: str) -> InputError:
    """What to raise where a file of a run or a model is not what was written."""
    return InputError(
        f"'{file}' is damaged ({why}): restore it, or let the run write it anew with "
        "--resume_from_checkpoint latest"
    )


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


# ---- Manifests ----


def write_manifest(folder: Path) -> None:
    """List the size and SHA-256 of every file in a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def read_manifest(folder: Path) -> dict[str, tuple[Any, Any]] | None:
    """Size and SHA-256 by the name of each listed file; None where the list cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def changed_file(folder: Path, manifest: dict[str, tuple[Any, Any]]) -> str | None:
    """Compare files with their manifest.

    Args:
        folder: of the manifest.
        manifest: the entries to compare.

    Returns:
        What is wrong with the first that differs, for a sentence; None where all are as they were written.
    """
    for name, (size, digest) in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if sha256(path) != digest:
            return f"{name} has changed since it was written"
    return None


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
