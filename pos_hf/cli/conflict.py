"""`pos-hf conflict RUN`: is a negative cosine a conflict of the objectives or the noise of single batches?"""

import argparse
import json
from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: The run cannot be measured, or was measured with other settings.
    """
    args = parser().parse_args(argv)

    with importing():
        from pos_hf.files import written_aside
        from pos_hf.reporting.conflict import conflict_picture, conflict_table
        from pos_hf.run_folder import CONFLICT_FILE, CONFLICT_PICTURE
        from pos_hf.runs.conflict import EXPORTED, check_weights, earlier_moments, measure, rebuild

    trainer, settings = rebuild(args.run)
    settings |= {"batches": args.batches, "seed": args.seed}
    measured = earlier_moments(args.run / CONFLICT_FILE, settings)
    # a path names the same checkpoint as its last part
    names = [name.rstrip("/").rpartition("/")[2] for name in args.checkpoint or [EXPORTED]]
    folders = {name: args.run if name == EXPORTED else args.run / name for name in names}
    for folder in folders.values():
        check_weights(trainer, folder)
    for name, folder in folders.items():
        if name not in measured:
            measured[name] = measure(trainer, folder, args.batches, args.seed)
        measured = dict(sorted(measured.items(), key=lambda item: item[1]["step"]))
        with written_aside(args.run) as aside:
            document = {**settings, "moments": measured}
            (aside / CONFLICT_FILE).write_text(json.dumps(document, indent=2) + "\n")
            (aside / CONFLICT_PICTURE).write_text(conflict_picture(measured))
    print(conflict_table(settings, {name: measured[name] for name in measured if name in folders}))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf conflict",
        description="Draw batches as a run did, at its trained weights and without a step of training, and "
        "estimate the full gradients of both objectives, their cosine, and the noise of a batch.",
    )
    parser.add_argument("run", type=Path, help="output folder of a training run with two objectives")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        help="checkpoints of the run, such as checkpoint-200 (default: the exported weights)",
    )
    parser.add_argument("--batches", type=int, default=32, help="independent batches, at least 16")
    parser.add_argument("--seed", type=int, default=0, help="seed of the batches")
    return parser
