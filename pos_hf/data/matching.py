"""Labeled images for a model that was trained earlier: its classes by name, its way to read an image."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from pos_hf.data.decoding import RowDecoder
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError, nearest
from pos_hf.values import IGNORE_INDEX


@dataclass(frozen=True)
class RenumberedMasks:
    """A transform of rows that gives the masks of another one the model's class ids.

    Args:
        decode: Of the rows as they are.
        model_ids: The model's id of every value of a mask, 256 of them.
    """

    decode: RowDecoder
    model_ids: tuple[int, ...]

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        lookup = np.array(self.model_ids, np.uint8)
        decoded = self.decode(batch)
        if "mask" in decoded:
            decoded["mask"] = [Image.fromarray(lookup[np.asarray(mask)]) for mask in decoded["mask"]]
        return decoded


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
    return rows.with_transform(RenumberedMasks(decode, tuple(model_ids)))
