"""Checkpoints that are complete or do not count: what seals one, and which of a run's to resume from."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from accelerate import Accelerator
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from pos_hf.files import MANIFEST, changed_file, explained, read_manifest, sync, write_manifest
from pos_hf.locks import check_held
from pos_hf.run_folder import METHOD_STATE, STATE_FILE

from .arguments import POSConfig

NEEDED = (STATE_FILE, "optimizer*", "scheduler.pt", "rng_state*", "window-*", METHOD_STATE)
"""Without one of these the Trainer goes on, from a fresh state."""


@contextmanager
def sealed(checkpoint: Path, args: POSConfig, accelerator: Accelerator) -> Iterator[None]:
    """Around the writing of a checkpoint: its manifest (sizes, SHA-256) comes last, when all else is on disk.

    The Trainer's own rotation is put off: it would remove the last complete checkpoint before this one is.

    Args:
        checkpoint: its folder; one of this name that is there already is removed first.
        args: of the run.
        accelerator: waits for the parts of all ranks.

    Raises:
        TrainingStopped: it cannot be written; nothing of it is left.
    """
    if args.should_save:
        check_held(checkpoint.parent)
        remove(checkpoint)
    accelerator.wait_for_everyone()
    limit, args.save_total_limit = args.save_total_limit, None
    with explained(checkpoint):
        try:
            yield
            accelerator.wait_for_everyone()
            if args.should_save:
                sync(checkpoint)
                write_manifest(checkpoint)
                sync(checkpoint)
                sync(checkpoint.parent, recursive=False)
        except BaseException:
            if args.should_save:
                remove(checkpoint)
            raise
        finally:
            args.save_total_limit = limit
        accelerator.wait_for_everyone()


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, its manifest first: a kill on the way leaves nothing that passes for complete."""
    with suppress(OSError):  # it is not there, or the disk is read-only
        (checkpoint / MANIFEST).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def find_damage(checkpoint: Path) -> str | None:
    """Compare a checkpoint with its manifest.

    Args:
        checkpoint: its folder.

    Returns:
        What is wrong with it, for a sentence; None for a complete checkpoint.
    """
    manifest = read_manifest(checkpoint)
    if manifest is None:
        if (checkpoint / MANIFEST).exists():
            return f"its {MANIFEST} cannot be read"
        return f"it has no {MANIFEST}, which is written last, so that the run ended before"
    for pattern in NEEDED:
        if not any(fnmatch(name, pattern) for name in manifest):
            return f"its {MANIFEST} lists no {pattern}"
    return changed_file(checkpoint, manifest)


def newest_complete(run: Path) -> tuple[Path | None, list[str]]:
    """Look for the checkpoint to go on from.

    Args:
        run: a run's folder.

    Returns:
        The complete checkpoint of the highest step, or None; and of each newer one why it is not complete.
    """
    skipped: list[str] = []
    for path in reversed(checkpoints(run)):
        damage = find_damage(path)
        if damage is None:
            return path, skipped
        skipped.append(f"{path.name}: {damage}")
    return None, skipped


def checkpoints(folder: Path) -> list[Path]:
    """The folders named checkpoint-N in a folder, in the order of their steps N."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")
    found = folder.iterdir() if folder.is_dir() else []
    return sorted((path for path in found if pattern.fullmatch(path.name) and path.is_dir()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number at the end of a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def rotate(newest: Path, best: str | None, limit: int | None) -> None:
    """Remove a run's checkpoints of the lowest steps, and what kills have left of others.

    Args:
        newest: the checkpoint just written, which stays.
        best: one more that stays.
        limit: how many stay in all; None or 0 for every one.
    """
    if not limit:
        return
    kept = {newest.name, *([Path(best).name] if best else [])}
    others = [path for path in checkpoints(newest.parent) if path.name not in kept]
    whole = [path for path in others if (path / MANIFEST).exists()]
    left = whole[max(len(whole) - max(limit - len(kept), 0), 0) :]
    for path in others:
        if path not in left:
            remove(path)
