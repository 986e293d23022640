"""Which rows play which role: labels drawn by seed, a selection set carved from them. No source."""

from dataclasses import replace

import numpy as np
from datasets import Dataset, concatenate_datasets

from pos_hf.data.arguments import DataArguments
from pos_hf.data.decoding import decode_rows
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError


def assign_roles(data: SegmentationData, args: DataArguments) -> SegmentationData:
    """Apply `num_labeled`, `selection_share`, `num_unlabeled` and `num_test` to what a source found.

    Labels given up by `num_labeled` become unlabeled rows; the selection set is taken from the labels left.

    Raises:
        InputError: Fewer rows than asked for, or a training role is empty.
    """
    data = _keep_labels(data, args.num_labeled, args.split_seed)
    if data.selection is None:
        data = _carve_selection(data, args.selection_share, args.split_seed)
    data = replace(data, unlabeled=_draw(data.unlabeled, args.num_unlabeled, "unlabeled", args.split_seed))
    if data.test is not None:
        # not drawn by split_seed: runs with different splits are compared on one test set
        data = replace(data, test=_draw(data.test, args.num_test, "test", seed=0))
    for role, rows in (("labeled", data.labeled), ("unlabeled", data.unlabeled)):
        if len(rows) == 0:
            raise InputError(
                f"there is no {role} image in {args.dataset}: add some, or correct the lists of ids"
            )
    return data


def _keep_labels(data: SegmentationData, count: int | None, seed: int) -> SegmentationData:
    kept = _draw_indices(data.labeled, count, "labeled", seed)
    released = np.setdiff1d(np.arange(len(data.labeled)), kept)
    if released.size == 0:
        return data
    rows = data.labeled.select(released).select_columns(["id", "image"])
    unlabeled = concatenate_datasets([rows.with_format(None), data.unlabeled.with_format(None)])
    return replace(data, labeled=data.labeled.select(kept), unlabeled=unlabeled.with_transform(decode_rows))


def _carve_selection(data: SegmentationData, share: float, seed: int) -> SegmentationData:
    carved = _draw_indices(data.labeled, int(share * len(data.labeled)), "labeled", seed)
    if carved.size == 0:
        return data
    rest = np.setdiff1d(np.arange(len(data.labeled)), carved)
    return replace(data, selection=data.labeled.select(carved), labeled=data.labeled.select(rest))


def _draw(rows: Dataset, count: int | None, role: str, seed: int) -> Dataset:
    return rows if count is None else rows.select(_draw_indices(rows, count, role, seed))


def _draw_indices(rows: Dataset, count: int | None, role: str, seed: int) -> np.ndarray:
    if count is None:
        return np.arange(len(rows))
    if not 0 <= count <= len(rows):
        raise InputError(f"{count} {role} images are asked for, but there are {len(rows)}: lower num_{role}")
    return np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
