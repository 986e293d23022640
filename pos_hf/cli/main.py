"""The `pos-hf` command: finds the command's file and turns bad input into one sentence and exit code 2."""

import errno
import io
import os
import sys
from importlib import import_module

from pos_hf.errors import InputError, TrainingStopped, did_you_mean
from pos_hf.version import __version__

COMMANDS = {
    "demo": "train on generated images with and without the unlabeled ones",
    "init": "look at a folder of images and write a config for it",
    "train": "train a model from a config file, a folder of images or a recipe",
    "recipes": "list the recipes that come with the package",
    "evaluate": "score a model on labeled images",
    "predict": "write masks and overlays for a folder of images",
    "app": "serve a page to try a model on",
    "suggest": "choose the unlabeled images to label next",
    "report": "draw one or more runs as an HTML page",
    "study": "run a grid of trainings and tabulate it",
    "landscape": "measure the loss around trained weights",
    "conflict": "tell a conflict of the two objectives from noise",
    "convert": "turn published weights into a model folder",
    "export": "write a model as ONNX",
    "push": "show what of a run would go to the Hub, and upload it",
    "check-data": "look for defects in a dataset",
    "completion": "print what lets a shell complete these commands",
}
OUT_OF_FILES = (
    "this process may open no more files: raise its limit with `ulimit -n 4096`, or use fewer workers "
    "(--dataloader_num_workers, --num_workers)"
)


def main(argv: list[str] | None = None) -> int:
    """Run `pos-hf COMMAND ...`.

    Args:
        argv: arguments after the program's name; None takes the process's.

    Returns:
        The exit code: 0 done, 1 a run began and cannot go on, 2 the input cannot be used.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: pos-hf COMMAND ...\n\ncommands:")
        for name, purpose in COMMANDS.items():
            print(f"  {name:<12}{purpose}")
        print("\npos-hf COMMAND --help says more.")
        return 0
    if arguments[0] == "--version":
        print(f"pos-hf {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        meant = did_you_mean(arguments[0], COMMANDS, listed="pos-hf --help")
        print(f"pos-hf: unknown command {arguments[0]!r}{meant}", file=sys.stderr)
        return 2
    return run_command(arguments[0], arguments[1:])


def run_command(name: str, argv: list[str]) -> int:
    """Run one command and report bad input.

    Args:
        name: a key of `COMMANDS`.
        argv: the command's own arguments.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    try:
        return import_module(f"pos_hf.cli.{name.replace('-', '_')}").main(argv)
    except Exception as error:
        if is_out_of_files(error):
            error = TrainingStopped(OUT_OF_FILES)
        if not isinstance(error, (InputError, TrainingStopped)):
            raise
        print(f"pos-hf {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether an error, or the one that it comes from, says that the process may open no more files."""
    while error is not None:
        # libraries that cannot be loaded and workers' errors have the words alone
        if getattr(error, "errno", None) == errno.EMFILE or os.strerror(errno.EMFILE) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
