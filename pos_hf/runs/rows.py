"""The labeled images that a trained model is scored on, from whatever names them."""

import dataclasses
from pathlib import Path

from transformers import BaseImageProcessor, PreTrainedModel

from pos_hf.data import DataArguments, SegmentationData, load_data, validate
from pos_hf.data.class_names import read_id2label
from pos_hf.data.decoding import RowDecoder, rows_to_dataset
from pos_hf.data.listing import list_images
from pos_hf.data.matching import with_classes_of
from pos_hf.errors import InputError
from pos_hf.evaluation import label_names
from pos_hf.evaluation.loading import decoder_for
from pos_hf.models.processors import num_channels
from pos_hf.runs.config import CONFIG_SUFFIXES, parse_config


def load_rows(
    source: str, role: str | None, model: PreTrainedModel, image_processor: BaseImageProcessor
) -> tuple[SegmentationData, str]:
    """The data to score and the role whose images are scored, read as the model was trained to.

    Args:
        source: `shapes`, a config file, or a folder with images/ and masks/ (all of them are scored).
        role: Role asked for, None for the default.
        model: Its classes are matched by name.
        image_processor: The model's; its value range and bands go before the config's.

    Raises:
        InputError: The data does not exist, lacks the role, or has other classes or channels than the model.
    """
    decoder = decoder_for(model, image_processor)
    if source == "shapes":
        data = load_data(DataArguments())
    elif source.endswith(CONFIG_SUFFIXES):
        _, data_args, training = parse_config(Path(source), [])
        if decoder.image_range is not None:
            data_args.image_range = list(decoder.image_range)
        if decoder.bands:
            data_args.bands = list(decoder.bands)
        data = load_data(data_args, "unsupervised" in training.get_method().objectives)
    else:
        data, role = load_folder(Path(source), label_names(model), decoder), "labeled"
    if data.num_channels != num_channels(model):
        raise InputError(
            f"the images of {data.name} have {data.num_channels} channels, but the model takes "
            f"{num_channels(model)}: score it on images like those it was trained on"
        )
    data = with_classes_of(data, label_names(model))
    role = role or ("selection" if data.test is None else "test")  # as training does
    if role not in data.masked_roles:
        raise InputError(f"{data.name} has no {role} images: --role is {' or '.join(data.masked_roles)}.")
    return data, role


def load_folder(folder: Path, id2label: dict[int, str], decoder: RowDecoder) -> SegmentationData:
    """Every image of images/ with its mask of masks/, checked; classes of id2label.json where it is there."""

    images, masks = list_images(folder / "images"), list_images(folder / "masks")
    if not images:
        raise InputError(f"'{folder / 'images'}' holds no image.")
    missing = sorted(images.keys() - masks.keys())
    if missing:
        raise InputError(f"the image '{images[missing[0]]}' has no mask ({len(missing)} such images).")
    if (folder / "id2label.json").is_file():
        id2label = read_id2label(DataArguments(dataset=str(folder)))
    rows = rows_to_dataset(list(images), list(images.values()), [masks[name] for name in images])
    rows = rows.with_transform(dataclasses.replace(decoder, num_channels=None))
    unlabeled = rows.select([]).remove_columns("mask")
    data = SegmentationData(folder.name, rows, unlabeled, None, None, id2label, [])
    validate(data, for_training=False)
    return data
