"""Pairs of a labeled and an unlabeled row, named by keys, and their batches. Views are made in views.py.

A key is (epoch, labeled index, unlabeled index). The order of keys is a function of (seed, epoch) and the
views of a pair are a function of (seed, key), so a run sees the same data with any number of workers and
after a resume.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset, Sampler, default_collate

from pos_hf.data.views import Views

Key = tuple[int, int, int]
Item = dict[str, dict[str, torch.Tensor]]


class PairedDataset(Dataset[Item]):
    """Views of one labeled and one unlabeled row.

    Args:
        labeled: Rows of `image`, `mask`.
        unlabeled: Rows of `image`.
        views: Makes the views.
        seed: Seed of every view.
    """

    def __init__(self, labeled: HFDataset, unlabeled: HFDataset, views: Views, seed: int) -> None:
        self.labeled = labeled.select_columns(["image", "mask"])
        self.unlabeled = unlabeled.select_columns(["image"])
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.unlabeled)

    def __getitem__(self, key: Key) -> Item:
        """Make the views a key names.

        Returns:
            {"labeled": {pixel_values uint8 [3,H,W], labels int64 [H,W]},
            "unlabeled": {pixel_values uint8 [3,H,W], strong_pixel_values uint8 [K,3,H,W],
            cutmix_boxes int64 [K,4] (top, left, height, width), padding_mask bool [H,W]}}
        """
        _, labeled_index, unlabeled_index = key
        row = self.labeled[labeled_index]
        labeled = self.views.labeled(row["image"], row["mask"], np.random.default_rng([self.seed, 0, *key]))
        row = self.unlabeled[unlabeled_index]
        unlabeled = self.views.unlabeled(row["image"], np.random.default_rng([self.seed, 1, *key]))
        return {"labeled": _tensors(labeled), "unlabeled": _tensors(unlabeled)}


class PairSampler(Sampler[Key]):
    """Keys of one epoch: each unlabeled row once, in random order, beside labeled rows that repeat.

    The n-th pair of the whole run takes the n-th row of an endless sequence of shuffles of the labeled set,
    so labeled rows are used equally often whatever the two sizes.

    Args:
        num_labeled: Labeled rows.
        num_unlabeled: Unlabeled rows, the length of an epoch.
        seed: Seed of the order.
    """

    def __init__(self, num_labeled: int, num_unlabeled: int, seed: int) -> None:
        self.num_labeled = num_labeled
        self.num_unlabeled = num_unlabeled
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_unlabeled

    def __iter__(self) -> Iterator[Key]:
        epoch = self.epoch
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(self.num_unlabeled)
        shuffle = np.empty(0, np.int64)
        shuffle_number = -1
        for position, unlabeled_index in enumerate(order.tolist()):
            number, labeled_position = divmod(epoch * self.num_unlabeled + position, self.num_labeled)
            if number != shuffle_number:
                shuffle_number = number
                shuffle = np.random.default_rng([self.seed, 1, number]).permutation(self.num_labeled)
            yield epoch, int(shuffle[labeled_position]), unlabeled_index


def collate(items: list[Item]) -> dict[str, dict[str, torch.Tensor]]:
    """Stack items along a new first dimension."""
    return default_collate(items)


def _tensors(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
