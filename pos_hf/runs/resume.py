"""Which checkpoint a run goes on from, and whether its folder may be written to."""

import sys
from pathlib import Path

from pos_hf.errors import InputError
from pos_hf.run_folder import RUN_FILE
from pos_hf.training import POSConfig
from pos_hf.training.checkpoints import checkpoints, find_damage, newest_complete


def find_checkpoint(folder: Path, args: POSConfig) -> str | None:
    """The checkpoint to resume from, if any; a folder that holds another run is not touched unasked.

    Args:
        folder: of the run.
        args: `resume_from_checkpoint` is a folder or "latest", which a run that was stopped before its first
            checkpoint may say too; `overwrite` allows a second run in `folder`.

    Returns:
        The checkpoint's folder, or None for a fresh run.

    Raises:
        InputError: the checkpoint is not there or damaged, or the folder holds another run.
    """
    asked = args.resume_from_checkpoint
    if asked == "latest":
        checkpoint, skipped = newest_complete(folder)
        if checkpoint is None and checkpoints(folder) and not args.overwrite:
            raise InputError(
                f"there is no checkpoint in {folder} to resume from ({'; '.join(skipped)}): start again with "
                "--overwrite"
            )
        outcome = f"resuming from {checkpoint}" if checkpoint else f"{folder} has no checkpoint yet: starting"
        if args.should_log and (skipped or checkpoint is None):
            print("; skipped ".join([outcome, *skipped]), file=sys.stderr)
        return str(checkpoint) if checkpoint else None
    if asked is not None:
        if not Path(asked).is_dir():
            raise InputError(f"there is no checkpoint {asked}")
        if damage := find_damage(Path(asked)):
            raise InputError(
                f"{asked} is not complete ({damage}): resume from `latest`, which is the newest complete one"
            )
    if (asked is None or not lies_in(asked, folder)) and (folder / RUN_FILE).exists() and not args.overwrite:
        raise InputError(
            f"{folder} holds another run: choose another output_dir, resume it with "
            "--resume_from_checkpoint latest, or replace it with --overwrite"
        )
    return asked


def lies_in(checkpoint: str, folder: Path) -> bool:
    """Whether a checkpoint is one of the run in `folder`, not of another run."""
    return Path(checkpoint).resolve().parent == folder.resolve()
