"""`pos-hf conflict RUN`: is a negative cosine a conflict of the objectives or the noise of single batches?"""

import argparse
import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pos_hf.cli.parsing import CommandParser
from pos_hf.errors import InputError

if TYPE_CHECKING:  # imported in the functions, so that --help answers at once
    from torch import Tensor

    from pos_hf.training import POSTrainer

CONFLICT_FILE, PICTURE_FILE = "conflict.json", "conflict.svg"
EXPORTED = "exported"  # in place of a checkpoint's name
FIRST_EPOCH = 10**6  # no run gets there, so that the views are new
# float32 in one process, whatever the run had; and nothing is reported, resumed or chosen
NEUTRAL: dict[str, Any] = {
    "bf16": False,
    "fp16": False,
    "fsdp": None,
    "fsdp_config": None,
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "hub_token": None,
    "report_to": [],
    "resume_from_checkpoint": None,
    "strategy": "uniform",
    "strategy_options": None,
}


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

    from pos_hf.files import written_aside
    from pos_hf.reporting.conflict import conflict_picture, conflict_table

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
            (aside / PICTURE_FILE).write_text(conflict_picture(measured))
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


def rebuild(run: Path) -> tuple["POSTrainer", dict[str, Any]]:
    """The trainer as the run had it, and what its batches are.

    Raises:
        InputError: the folder is no run, the run has one objective, or its data is not what it was.
    """
    from pos_hf.cli.config import ModelArguments
    from pos_hf.cli.run import load_images, make_trainer
    from pos_hf.data import DataArguments
    from pos_hf.files import RUN_FILE, read_json
    from pos_hf.training import POSConfig

    if not (run / RUN_FILE).is_file():
        raise InputError(f"'{run}' holds no {RUN_FILE}: give the output folder of a training run")
    saved = read_json(run / RUN_FILE)
    data_args = DataArguments(**saved["data"])
    args = POSConfig(**saved["training"] | NEUTRAL | {"output_dir": str(run)})
    method = args.get_method()
    if len(method.objectives) < 2:
        raise InputError(f"'{run}' was trained with method {args.method!r}, which has one objective alone")
    model_args = ModelArguments(**saved["model"])
    data, processor = load_images(model_args, data_args)
    if data.split_hash() != saved["facts"]["split_hash"]:
        raise InputError(f"the images of {data.name} are not those that '{run}' was trained on: restore them")
    trainer = make_trainer(model_args, data_args, args, data, method, processor)
    images = args.per_device_train_batch_size
    settings = {"labeled_images": images // data_args.unlabeled_ratio, "unlabeled_images": images}
    return trainer, settings


def earlier_moments(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call measured.

    Raises:
        InputError: it did so with other settings.
    """
    if not file.exists():
        return {}
    from pos_hf.files import read_json

    document = read_json(file)
    moments: dict[str, Any] = document.pop("moments")
    if document != settings:
        raise InputError(
            f"'{file}' was measured with --batches {document['batches']} --seed {document['seed']}: give the "
            "same, or delete it first"
        )
    return moments


def check_weights(trainer: "POSTrainer", folder: Path) -> None:
    """Check that there is all that a method needs.

    Raises:
        InputError: there is not.
    """
    from transformers.trainer import TRAINER_STATE_NAME

    from pos_hf.training.checkpoints import checkpoints, find_damage

    run = Path(trainer.args.output_dir)
    known = [path.name for path in checkpoints(run)]
    if folder != run:
        if folder.name not in known:
            raise InputError(f"'{run}' has no checkpoint {folder.name!r}, but {', '.join(known) or 'none'}")
        if damage := find_damage(folder):
            raise InputError(f"{folder} is not complete ({damage}): measure another checkpoint")
    elif trainer.method.num_students > 1 or trainer.method.state_dict():
        raise InputError(
            f"the export of '{run}' lacks the state of method {trainer.args.method!r}: name one of its "
            f"checkpoints ({', '.join(known) or 'it has none: train with save_strategy'})"
        )
    elif not (run / TRAINER_STATE_NAME).is_file():
        raise InputError(f"'{run}' is not finished: name one of its checkpoints ({', '.join(known)})")


def measure(trainer: "POSTrainer", folder: Path, num_batches: int, seed: int) -> dict[str, Any]:
    """The estimates at the weights and state of a checkpoint or an export; three numbers an interval.

    Raises:
        InputError: the gradients do not fit the disk.
    """
    import torch
    from tqdm import tqdm

    from pos_hf.balancing.conflict import Estimate, estimate_conflict, gram_matrix

    load(trainer, folder)
    torch.manual_seed(seed)  # of dropout
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    size = 2 * num_batches * parameters
    scratch_folder = tempfile.gettempdir()
    if 4 * size > shutil.disk_usage(scratch_folder).free:
        raise InputError(
            f"the gradients of {num_batches} batches take {4 * size / 2**30:.1f} GiB, more than is free in "
            f"{scratch_folder}: let TMPDIR name another folder, or lower --batches"
        )
    print(f"{folder}: {4 * size / 2**30:.2f} GiB of gradients in {scratch_folder}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        stack = torch.from_file(f"{scratch}/gradients", shared=True, size=size).view(2 * num_batches, -1)
    # the file has no name any more: its space is free again however the process ends
    batches = draw_batches(trainer, num_batches, seed)
    for number, batch in enumerate(tqdm(batches, desc=folder.name, total=num_batches, unit="batch")):
        stack[number], stack[num_batches + number] = gradients_of(trainer, batch)
    products = gram_matrix(stack)
    s, u = slice(0, num_batches), slice(num_batches, 2 * num_batches)
    conflict = estimate_conflict(products[s, s], products[u, u], products[s, u])
    numbers = {
        name: [number_or_none(part) for part in value]
        if isinstance(value, Estimate)
        else number_or_none(value)
        for name, value in conflict._asdict().items()
    }
    return {"step": trainer.state.global_step, "parameters": parameters, **numbers}


def number_or_none(number: "Tensor") -> float | None:
    """JSON has no NaN."""
    return None if number.isnan() else number.item()


def load(trainer: "POSTrainer", folder: Path) -> None:
    """Give the trainer the student, the teacher and the method's state of that moment."""
    from safetensors.torch import load_file
    from transformers import Trainer, TrainerState
    from transformers.trainer import TRAINER_STATE_NAME
    from transformers.utils import SAFE_WEIGHTS_NAME

    from pos_hf.files import STUDENT_FOLDER

    trainer.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
    if folder != Path(trainer.args.output_dir):
        trainer._load_from_checkpoint(str(folder))
        return
    Trainer._load_from_checkpoint(trainer, str(folder / STUDENT_FOLDER if trainer.teacher else folder))
    if trainer.teacher:
        trainer.teacher.load_state_dict(load_file(folder / SAFE_WEIGHTS_NAME))


def draw_batches(trainer: "POSTrainer", num_batches: int, seed: int) -> Iterator[dict[str, Any]]:
    """Independent batches of the run's own data: each is the first of an epoch with an order of its own.

    The batches of one epoch share no image, so that their noises are not independent but cancel out.
    """
    from pos_hf.data import collate

    dataset = trainer.train_dataset
    for number in range(num_batches):
        sampler = dataset.sampler(seed + number)
        sampler.set_epoch(FIRST_EPOCH + number)
        keys = islice(sampler, trainer.args.per_device_train_batch_size)
        yield collate([dataset[key] for key in keys])


def gradients_of(trainer: "POSTrainer", batch: dict[str, Any]) -> tuple["Tensor", "Tensor"]:
    """g_s and g_u of a batch, float32 [P] each; what the forwards change in student and method is undone."""
    import torch

    method, buffers = trainer.method, [*trainer.model.buffers()]
    saved = [buffer.clone() for buffer in buffers]
    trainer.method = copy.deepcopy(method)
    pair = trainer.capture_gradients(batch)
    trainer.method = method
    for buffer, value in zip(buffers, saved, strict=True):
        buffer.copy_(value)
    flat = [
        torch.cat(
            [
                (torch.zeros_like(p) if gradient is None else gradient).reshape(-1).float().cpu()
                for p, gradient in zip(pair.parameters, pair.gradients(objective), strict=True)
            ]
        )
        for objective in trainer.method.objectives
    ]
    return flat[0], flat[1]
