"""What is said of a machine that a run has outgrown: its memory, shared memory, open files, data workers."""

import errno
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pos_hf.errors import TrainingStopped
from pos_hf.evaluation.evaluator import is_out_of_memory

from .arguments import POSConfig

ONE_VALUE = "Expected more than 1 value per channel"  # PyTorch's words for a BatchNorm without a variance
TOO_MANY_FILES = ("Too many open files", "received 0 items of ancdata")
SHARED_MEMORY = ("Bus error", "shared memory", "unable to write to file </torch", "unable to mmap")
WORKER = "DataLoader worker"
SHARED_FOLDER = Path("/dev/shm")
GO_ON = "and go on from the last checkpoint with --resume_from_checkpoint latest"


@contextmanager
def advice_on_failure(args: POSConfig, crop_size: int, can_checkpoint: bool) -> Iterator[None]:
    """Turn an exhausted machine, and a batch too small for BatchNorm, into the advice that fits the run.

    Args:
        args: of the run.
        crop_size: of the run, in pixels.
        can_checkpoint: the model can compute its activations again instead of keeping them.

    Raises:
        TrainingStopped: in place of PyTorch's error.
    """
    try:
        yield
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise TrainingStopped(
            "a BatchNorm of the network sees one value a channel: a step holds a single labeled image; "
            "raise per_device_train_batch_size, or take a network without BatchNorm (deeplabv3plus_tiny)"
        ) from error
    except (RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            raise TrainingStopped(_less_memory(args, crop_size, can_checkpoint)) from error
        if sentence := _of_workers(error, args.dataloader_num_workers):
            raise TrainingStopped(sentence) from error
        raise


@contextmanager
def advice_on_evaluation(args: POSConfig, model: str) -> Iterator[None]:
    """The same for whole images, for which a smaller crop or training batch would free nothing.

    Args:
        args: of the run.
        model: where the model to be scored lies, or will.

    Raises:
        TrainingStopped: in place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        batch = args.per_device_eval_batch_size
        images, fewer = "image", ""
        if batch > 1:
            images, fewer = "images at once", "per_device_eval_batch_size: 1, or "
        raise TrainingStopped(
            f"the memory of {args.device} is too small to score {batch} whole {images}: try {fewer}smaller "
            "evaluation images, or leave the evaluation out of training (eval_strategy: 'no') and score "
            f"{model} with pos-hf evaluate --window"
        ) from error


def _less_memory(args: POSConfig, crop_size: int, can_checkpoint: bool) -> str:
    batch, parts = args.per_device_train_batch_size, args.gradient_accumulation_steps
    advice = []
    if batch > 1:
        smaller = next(size for size in range(batch // 2, 0, -1) if batch % size == 0)
        advice.append(
            f"per_device_train_batch_size: {smaller} with gradient_accumulation_steps: "
            f"{parts * batch // smaller}"
        )
    if can_checkpoint and not args.gradient_checkpointing:
        advice.append("gradient_checkpointing: true")
    if not (args.bf16 or args.fp16) and args.device.type != "cpu":
        advice.append("bf16: true")
    changes = f"try {', or '.join(advice)}, {GO_ON}; or " if advice else ""
    return (
        f"the memory of {args.device} is too small for {batch} unlabeled images a step at crop_size "
        f"{crop_size}: {changes}start {args.output_dir} again, with a smaller crop_size and --overwrite"
    )


def _of_workers(error: BaseException, num_workers: int) -> str | None:
    text, workers = str(error), f"{num_workers} data workers"
    if getattr(error, "errno", None) == errno.EMFILE or any(words in text for words in TOO_MANY_FILES):
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"{limit} open files are too few for {workers}: raise the limit (ulimit -n 4096), or lower "
            f"dataloader_num_workers, {GO_ON}"
        )
    if any(words in text for words in SHARED_MEMORY):
        size = shutil.disk_usage(SHARED_FOLDER).total / 2**20 if SHARED_FOLDER.is_dir() else 0
        return (
            f"the shared memory ({SHARED_FOLDER}, {size:.0f} MiB) is too small for the batches of {workers}: "
            f"enlarge it (docker run --shm-size 8g), or set dataloader_num_workers to 0, {GO_ON}"
        )
    if WORKER in text:
        return (
            f"one of {workers} was killed, most often because the machine's memory is exhausted: lower "
            f"dataloader_num_workers or dataloader_prefetch_factor, {GO_ON}"
        )
    return None
