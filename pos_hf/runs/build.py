"""Data, processor, student and trainer from a run's arguments. Training them is in train.py."""

import dataclasses
from typing import Any, cast

import torch
from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.data import DataArguments, PairedDataset, SegmentationData, load_data
from pos_hf.errors import InputError
from pos_hf.methods import Method, StudentPair
from pos_hf.models import PRESETS, build_model, default_image_processor
from pos_hf.models.adapters import add_lora
from pos_hf.models.freezing import freeze_backbone
from pos_hf.models.layout import lay_out
from pos_hf.models.presets import check_name
from pos_hf.models.processors import inherited_image_processor
from pos_hf.runs.config import ModelArguments
from pos_hf.training import POSConfig, POSTrainer


def make_trainer(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: POSConfig,
    data: SegmentationData,
    method: Method,
    processor: BaseImageProcessor,
) -> POSTrainer:
    """Build the student for the data's classes and the trainer for both.

    Args:
        model_args: the network.
        data_args: the views.
        args: the trainer's own arguments.
        data: loaded and checked.
        method: how the losses are made.
        processor: normalises in training and is saved beside the model.

    Returns:
        The trainer, ready to train.
    """
    torch.manual_seed(args.seed)
    students = [build_student(model_args, data) for _ in range(method.num_students)]
    role = evaluated_role(data, method)
    trainer = POSTrainer(
        StudentPair(*students) if len(students) == 2 else students[0],
        args,
        PairedDataset.from_arguments(data, data_args, args.seed),
        eval_dataset=data.masked_roles[role] if role else None,
        processing_class=processor,
        method=method,
    )
    if not trainer.is_fsdp_enabled:  # it shards contiguous weights alone
        for network in trainer.networks:
            lay_out(network, args.device)
    return trainer


def evaluated_role(data: SegmentationData, method: Method) -> str | None:
    """Name of the role whose images are scored during training, None where there is none."""
    if data.selection is not None:
        return "selection"
    # a method that measures itself on labels must not do so on the test set
    return None if data.test is None or method.needs_held_out else "test"


def load_images(
    model_args: ModelArguments, data_args: DataArguments, needs_unlabeled: bool = True
) -> tuple[SegmentationData, BaseImageProcessor]:
    """The data, read as the start model reads images where the config does not say how.

    Args:
        model_args: the network.
        data_args: the images.
        needs_unlabeled: without unlabeled images the data is refused.

    Returns:
        The data, checked, and the processor that normalises in training and is saved beside the model.

    Raises:
        InputError: the data or the start model's processor cannot be used.
    """
    processor = read_image_processor(model_args, data_args)
    own: dict[str, Any] = {name: processor.to_dict().get(name) for name in ("image_range", "bands")}
    data = load_data(dataclasses.replace(data_args, **own), needs_unlabeled)
    set_statistics(processor, data_args, data.num_channels)
    return data, processor


def read_image_processor(model_args: ModelArguments, data_args: DataArguments) -> BaseImageProcessor:
    """The processor that a training begins with, before the images are known.

    Args:
        model_args: a preset gets the default one, a start model brings its own.
        data_args: `image_range` and `bands` go before the start model's.

    Returns:
        A processor whose `image_range` and `bands`, if any, read the images.

    Raises:
        InputError: there is no such model, or its processor cannot be used.
    """
    check_name(model_args.model)
    if model_args.model in PRESETS:
        processor: Any = default_image_processor()
    else:
        processor = inherited_image_processor(model_args.model, model_args.trust_remote_code)
    if data_args.image_range is not None:
        processor.image_range = list(data_args.image_range)
    if data_args.bands is not None:
        processor.bands = list(data_args.bands)
    return processor


def set_statistics(processor: BaseImageProcessor, data_args: DataArguments, num_channels: int) -> None:
    """Complete a processor with what the config and the images say.

    Where the config says nothing, a start model's statistics stay as they are, and those of images of other
    than the processor's channels become 0.5 and 0.25.

    Args:
        processor: changed in place.
        data_args: `image_mean` and `image_std`.
        num_channels: of the images.

    Raises:
        InputError: there is not one number a channel.
    """
    for name, neutral in (("image_mean", 0.5), ("image_std", 0.25)):
        own = list(getattr(processor, name))
        default = own * num_channels if len(own) == 1 else own
        if len(default) != num_channels:
            default = [neutral] * num_channels
        asked = getattr(data_args, name)
        values = default if asked is None else asked
        if len(values) != num_channels:
            raise InputError(f"{name} has {len(values)} numbers, but the images have {num_channels} channels")
        setattr(processor, name, list(values))


def build_student(model_args: ModelArguments, data: SegmentationData) -> PreTrainedModel:
    """One network for the data's classes.

    Args:
        model_args: which network and weights.
        data: its classes and palette.

    Returns:
        The model, in training mode.

    Raises:
        InputError: the model cannot be made, or its backbone not be frozen or adapted.
    """
    model = build_model(
        model_args.model,
        data.id2label,
        backbone_weights=model_args.backbone_weights,
        num_channels=data.num_channels,
        trust_remote_code=model_args.trust_remote_code,
        **{"palette": data.palette, **cast(dict[str, Any], model_args.model_options)},
    )
    adapts = model_args.freeze_backbone or model_args.peft is not None
    if adapts and model_args.model in PRESETS and model_args.backbone_weights is None:
        raise InputError(
            f"the backbone would keep the random weights of {model_args.model}: set backbone_weights, or "
            "leave out freeze_backbone and peft"
        )
    if model_args.freeze_backbone:
        freeze_backbone(model)
    if model_args.peft is not None:
        add_lora(model, cast(dict[str, Any], model_args.peft))
    return model
