"""Labeled images for a model that was trained earlier: its classes by name, its way to read an image."""

import dataclasses
import re

from datasets import Dataset

from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError, nearest
from pos_hf.values import IGNORE_INDEX


def with_classes_of(data: SegmentationData, id2label: dict[int, str]) -> SegmentationData:
    """The data with the model's class ids: classes of the same names in another order are renumbered.

    Args:
        data: Loaded.
        id2label: The model's classes, 0 to C-1; LABEL_0, LABEL_1, ... say nothing and are taken as they are.

    Raises:
        InputError: The model has other classes.
    """
    names = [id2label[id] for id in range(len(id2label))]
    if len(names) != data.num_classes:
        raise InputError(f"the model has {len(names)} classes, but {data.name} has {data.num_classes}.")
    own = [data.id2label[id] for id in range(len(names))]
    if names == own or all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return data
    if unknown := [name for name in own if name not in names]:
        raise InputError(
            f"{data.name} has the class {unknown[0]!r}, which the model does not know (its nearest is "
            f"{nearest(unknown[0], names)!r}): rename it in `class_names` or id2label.json if it is the same"
        )
    model_ids = list(range(IGNORE_INDEX + 1))
    model_ids[: len(own)] = [names.index(name) for name in own]
    return dataclasses.replace(
        data,
        id2label=dict(enumerate(names)),
        palette=[data.palette[own.index(name)] for name in names] if data.palette else [],
        labeled=_renumbered(data.labeled, model_ids),
        selection=data.selection and _renumbered(data.selection, model_ids),
        test=data.test and _renumbered(data.test, model_ids),
    )


def _renumbered(rows: Dataset, model_ids: list[int]) -> Dataset:
    decode = rows.format["format_kwargs"]["transform"]
    merged = tuple(model_ids[id] for id in decode.merged or range(IGNORE_INDEX + 1))
    return rows.with_transform(dataclasses.replace(decode, merged=merged))
