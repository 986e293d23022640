"""What must hold between a run's arguments, its data and its folder before training. No single value."""

import math
from pathlib import Path

import numpy as np
import torch
from transformers import IntervalStrategy, PreTrainedModel

from pos_hf.data import DataArguments, SegmentationData
from pos_hf.errors import InputError, first_sentence, nearest
from pos_hf.evaluation.inference import Inference, class_probabilities, patch_size
from pos_hf.files import keep_existing
from pos_hf.methods.base import predict_logits
from pos_hf.models import PRESETS
from pos_hf.models.processors import num_channels
from pos_hf.run_folder import OUTPUTS
from pos_hf.runs.config import ModelArguments
from pos_hf.training import POSConfig
from pos_hf.training.arguments import CLASS_SCORE

SIZES_TRIED = 4  # images of each scored role


def check_before_loading(
    model_args: ModelArguments, data_args: DataArguments, args: POSConfig, is_fresh: bool
) -> None:
    """Check what can be known before data and model are loaded.

    Args:
        model_args: the network.
        data_args: the images.
        args: the trainer's own arguments.
        is_fresh: the run does not go on with one in its folder.

    Raises:
        InputError: a file of the user's would be replaced, or arguments do not go together.
    """
    folder = Path(args.output_dir)
    if is_fresh and not args.overwrite:
        outputs = [folder / name for name in OUTPUTS]
        keep_existing(outputs, "choose another output_dir, or replace the folder's files with --overwrite")
    if args.per_device_train_batch_size % data_args.unlabeled_ratio:
        raise InputError(
            f"per_device_train_batch_size {args.per_device_train_batch_size} is no multiple of "
            f"unlabeled_ratio {data_args.unlabeled_ratio}, so that a batch could be without a labeled image: "
            "change one"
        )
    source = Path(model_args.model)
    if model_args.model not in PRESETS and source.is_dir() and not (source / "config.json").is_file():
        raise InputError(
            f"the model folder {source} holds no config.json: give the folder of a trained model"
        )


def check_rows(data: SegmentationData, data_args: DataArguments, args: POSConfig) -> None:
    """Check that there are images enough for a step, and some to evaluate on where that is asked for.

    Raises:
        InputError: there are not.
    """
    needed = args.per_device_train_batch_size * args.world_size
    role = "unlabeled" if len(data.unlabeled) else "labeled"  # a supervised method may do without
    found = len(data.unlabeled) or len(data.labeled)
    if args.dataloader_drop_last and found < needed:
        raise InputError(
            f"a step takes {needed} {role} images, but {data.name} has {found}: lower "
            "per_device_train_batch_size, or set dataloader_drop_last to false"
        )
    pairs = len(data.labeled) * data_args.unlabeled_ratio
    if args.dataloader_drop_last and data_args.epoch_over == "labeled" and pairs < needed:
        raise InputError(
            f"epoch_over 'labeled' makes epochs of {pairs} pairs, but a step takes {needed}: lower "
            "per_device_train_batch_size, or leave epoch_over out"
        )
    if args.eval_strategy != "no" and data.selection is None and data.test is None:
        raise InputError(
            f"{data.name} has neither selection nor test images for eval_strategy "
            f"{IntervalStrategy(args.eval_strategy).value!r}: add some, or raise selection_share"
        )
    score = (args.metric_for_best_model or "").removeprefix("eval_")
    label = score.removeprefix(CLASS_SCORE)
    if score.startswith(CLASS_SCORE) and label not in data.id2label.values():
        raise InputError(
            f"metric_for_best_model is {score!r}, but {data.name} has no class {label!r}, did you mean "
            f"{nearest(label, data.id2label.values())!r}?"
        )


def settle_device_views(data_args: DataArguments, device: torch.device) -> None:
    """Decide where strong views are made, if the config leaves it open: a GPU spares the workers work."""
    if data_args.device_views is None:
        data_args.device_views = device.type == "cuda"


def check_crop(model: PreTrainedModel, crop_size: int) -> None:
    """Check that a crop holds at least one of the model's patches.

    Raises:
        InputError: it does not.
    """
    patch = patch_size(model)
    if crop_size < patch:
        raise InputError(
            f"crop_size {crop_size} is smaller than the model's patches of {patch} pixels: raise it"
        )


@torch.no_grad()
def check_sizes(model: PreTrainedModel, data: SegmentationData, crop_size: int, inference: Inference) -> None:
    """Show the model a crop and images of the sizes that it will be scored on, before it is trained.

    Args:
        model: the one that will be exported, on its device.
        data: its selection and test images; a few of each are looked at.
        crop_size: side of the training crop, in pixels.
        inference: of the evaluations.

    Raises:
        InputError: the model takes no image of one of these sizes.
    """
    scored = [rows for rows in (data.selection, data.test) if rows is not None and len(rows)]
    looked_at = [rows[i] for rows in scored for i in range(0, len(rows), -(-len(rows) // SIZES_TRIED))]
    sizes = {np.asarray(row["mask"]).shape for row in looked_at}
    extremes = {max(sizes, key=math.prod), max(sizes, key=lambda size: size[1] / size[0])} if sizes else set()
    crop = (crop_size, crop_size)
    was_training = model.training
    model.eval()
    for height, width in (crop, *sorted(extremes)):
        image = torch.zeros(1, num_channels(model), height, width, device=model.device, dtype=model.dtype)
        try:
            if (height, width) == crop:  # as in training: not resized to the patch
                predict_logits(model, image)
            else:
                class_probabilities(model, image, inference)
        except Exception as error:  # a network refuses a size in the words of any of its layers
            what = "of crop_size" if (height, width) == crop else "like the selection and test images"
            raise InputError(
                f"{type(model).__name__} cannot take images of {width} x {height} pixels, {what} "
                f"({first_sentence(error)}): give it others, or train another model"
            ) from error
    model.train(was_training)
