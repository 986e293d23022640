"""Measures the gradients of a finished run at its trained weights, for `pos-hf conflict`."""

import copy
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, TrainerState

from pos_hf.balancing import GradientPair
from pos_hf.balancing.conflict import Estimate, estimate_conflict, gram_matrix
from pos_hf.data import DataArguments, collate
from pos_hf.errors import InputError
from pos_hf.files import read_json
from pos_hf.models.adapters import has_adapters
from pos_hf.run_folder import RUN_FILE, STATE_FILE, STUDENT_FOLDER
from pos_hf.runs.build import load_images, make_trainer
from pos_hf.runs.config import ModelArguments
from pos_hf.training import POSConfig, POSTrainer
from pos_hf.training.checkpoints import checkpoints, find_damage

EXPORTED = "exported"  # in place of a checkpoint's name
FIRST_EPOCH = 10**6  # no run gets there, so that the views are new
# float32 in one process, whatever the run had; and nothing is reported or resumed
NEUTRAL: dict[str, Any] = {
    "bf16": False,
    "fp16": False,
    "fsdp": None,
    "fsdp_config": None,
    "push_to_hub": False,
    "hub_token": None,
    "report_to": [],
    "resume_from_checkpoint": None,
    "strategy": "uniform",
    "strategy_options": None,
}


def rebuild(run: Path) -> tuple[POSTrainer, dict[str, Any]]:
    """The trainer as the run had it, and what its batches are.

    Raises:
        InputError: the folder is no run, the run has one objective, or its data is not what it was.
    """
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
    document = read_json(file)
    moments: dict[str, Any] = document.pop("moments")
    if document != settings:
        raise InputError(
            f"'{file}' was measured with --batches {document['batches']} --seed {document['seed']}: give the "
            "same, or delete it first"
        )
    return moments


def check_weights(trainer: POSTrainer, folder: Path) -> None:
    """Check that there is all that a method needs.

    Raises:
        InputError: there is not.
    """
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
    elif has_adapters(trainer.model):
        raise InputError(
            f"the export of '{run}' has its adapters merged: name one of its checkpoints "
            f"({', '.join(known) or 'it has none: train with save_strategy'})"
        )
    elif not (run / STATE_FILE).is_file():
        raise InputError(f"'{run}' is not finished: name one of its checkpoints ({', '.join(known)})")


def measure(trainer: POSTrainer, folder: Path, num_batches: int, seed: int) -> dict[str, Any]:
    """The estimates at the weights and state of a checkpoint or an export; three numbers an interval.

    Raises:
        InputError: the gradients do not fit the disk.
    """
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


def number_or_none(number: Tensor) -> float | None:
    """JSON has no NaN."""
    return None if number.isnan() else number.item()


def load(trainer: POSTrainer, folder: Path) -> None:
    """Give the trainer the student, the teacher and the method's state of that moment."""
    trainer.state = TrainerState.load_from_json(str(folder / STATE_FILE))
    if folder != Path(trainer.args.output_dir):
        trainer._load_from_checkpoint(str(folder))
        trainer.run_state.load(folder)
        return
    assert isinstance(trainer.model, PreTrainedModel)  # of two students the export keeps one
    load_exported(trainer.model, folder / STUDENT_FOLDER if trainer.teacher else folder)
    if trainer.teacher:
        load_exported(trainer.teacher.model, folder)


def load_exported(model: PreTrainedModel, folder: Path) -> None:
    """Give a model the weights of an exported one, whatever names they were saved under."""
    exported = type(model).from_pretrained(folder, dtype=model.dtype)
    model.load_state_dict(exported.state_dict())


def draw_batches(trainer: POSTrainer, num_batches: int, seed: int) -> Iterator[dict[str, Any]]:
    """Independent batches of the run's own data: each is the first of an epoch with an order of its own.

    The batches of one epoch share no image, so that their noises are not independent but cancel out.
    """
    dataset = trainer.train_dataset
    for number in range(num_batches):
        sampler = dataset.sampler(seed + number)
        sampler.set_epoch(FIRST_EPOCH + number)
        keys = islice(sampler, trainer.args.per_device_train_batch_size)
        yield collate([dataset[key] for key in keys])


def gradients_of(trainer: POSTrainer, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """g_s and g_u of a batch, float32 [P] each; what the forwards change in student and method is undone."""
    method, buffers = trainer.method, [*trainer.model.buffers()]
    saved = [buffer.clone() for buffer in buffers]
    trainer.method = copy.deepcopy(method)
    pair = GradientPair([p for p in trainer.model.parameters() if p.requires_grad])
    inputs = trainer.device_batch(trainer._prepare_inputs(batch))
    trainer.set_training(trainer.model)
    for term in trainer.loss_terms(trainer.model, inputs):
        pair.restore(term.objective)
        term.loss.backward(retain_graph=term.retain_graph)
        pair.capture(term.objective)
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
