"""What commands share: arguments, which fail in one sentence, and quick imports."""

import argparse
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from pos_hf.errors import InputError
from pos_hf.values import check_intervals

if TYPE_CHECKING:
    from pos_hf.evaluation import Inference

INTERVALS = {
    "batch_size": "[1, 65536]",
    "batches": "[16, 4096]",
    "count": "[1, 1000000]",
    "num_workers": "[0, 1024]",
    "threshold": "[0, 1]",
    "min_confidence": "[0, 1]",
    "multiple": "[1, 16384]",
    "window": "[2, 65536]",  # a window's stride is two thirds of it
    "scales": "(0, 100]",
    "points": "[1, 1001]",
    "radius": "(0, 1e6]",
    "seed": "[0, 4294967295]",
    "jobs": "[1, 1024]",
    "seeds": "[1, 1000]",
    "train_images": "[1, inf)",
    "test_images": "[1, inf)",
}


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError, also for numbers outside of `INTERVALS`."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help lists the arguments")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, and check the numbers."""
        parsed, others = super().parse_known_args(args, namespace)
        check_intervals(vars(parsed), INTERVALS)
        return parsed, others


@contextmanager
def importing() -> Iterator[None]:
    """Import what a command needs without looking for garbage: that takes a third of the time and finds none.

    What is there afterwards, once a process, counts as permanent: neither training nor the exit looks again.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that loads one trained model."""
    parser.add_argument("model", help="folder of a trained model, or the id of a Hub repository")
    parser.add_argument("--subfolder", default="", help="where in it the model lies, for example student")
    add_remote_code_argument(parser)


def add_remote_code_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of every command that loads trained models."""
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run the model code that the folder brings along"
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `inference_from` reads."""
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--multiple", type=int, help="resize sides to this multiple (default: the patch; 1: never)"
    )
    group.add_argument("--window", type=int, help="side of a sliding window in pixels")
    group.add_argument(
        "--layout",
        choices=("shifted", "truncated"),
        default="shifted",
        help="last window inside the image (UniMatch V2) or cut at its border (V1)",
    )
    group.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average over these scales")
    group.add_argument("--flip", action="store_true", help="average also over the mirrored image")


def inference_from(args: argparse.Namespace) -> "Inference":
    """The inference that the command line describes."""
    from pos_hf.evaluation import Inference

    return Inference(args.multiple, args.window, args.layout, tuple(args.scales), args.flip)
