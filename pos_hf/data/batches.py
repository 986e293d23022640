"""Pairs of a labeled and an unlabeled row, named by keys, and their batches. Views are made in views.py.

A key is (epoch, labeled index, unlabeled index). The order of keys is a function of (seed, epoch) and the
views of a pair are a function of (seed, key), so a run sees the same data with any number of workers and
after a resume.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset, Sampler, default_collate

from pos_hf.data.arguments import DataArguments
from pos_hf.data.decoding import RowDecoder
from pos_hf.data.geometry import Large
from pos_hf.data.segmentation_data import SegmentationData, row_ids
from pos_hf.data.splits import count_labels
from pos_hf.data.views import Views
from pos_hf.errors import InputError
from pos_hf.values import IGNORE_INDEX

logger = logging.getLogger(__name__)

NOTHING_LABELED = "all masks (labeled) are ignored in all of their pixels: label some"

Key = tuple[int, int, int]
Item = dict[str, dict[str, torch.Tensor]]

NO_LABEL = -1  # a key's labeled index where the unlabeled row has no labeled partner


class PairedDataset(Dataset[Item]):
    """Views of one labeled and one unlabeled row.

    Args:
        labeled: Rows of `image`, `mask`.
        unlabeled: Rows of `image`.
        views: Makes the views.
        seed: Seed of every view.
        unlabeled_ratio: Unlabeled rows a labeled one: only one key in so many has a labeled row.
        shows_class: For class-aware sampling, whether each labeled row shows each class, bool [N, C].
        second_draw: Add a group "partner": a second draw of the same unlabeled row (UniMatch V1).
        skip_bad: The next row that can be read takes the place of one that cannot; every group then counts
            the rows it passed over.
        epoch_over: "unlabeled" or "labeled", the rows that an epoch goes through once.
    """

    def __init__(
        self,
        labeled: HFDataset,
        unlabeled: HFDataset,
        views: Views,
        seed: int,
        unlabeled_ratio: int = 1,
        shows_class: np.ndarray | None = None,
        second_draw: bool = False,
        skip_bad: bool = False,
        epoch_over: str = "unlabeled",
    ) -> None:
        self.labeled = _in_parts(labeled)
        self.unlabeled = _in_parts(unlabeled)
        self.views = views
        self.seed = seed
        self.unlabeled_ratio = unlabeled_ratio
        self.shows_class = shows_class
        self.second_draw = second_draw
        self.skip_bad = skip_bad
        self.epoch_over = epoch_over
        self._reported: set[str] = set()
        self._without_labels: set[int] = set()

    @classmethod
    def from_arguments(cls, data: SegmentationData, args: DataArguments, seed: int) -> "PairedDataset":
        """Pair the training roles as the arguments say; `POSTrainer` asks for the views its method needs.

        Without unlabeled images (a supervised method) the labeled ones make the epoch.
        """
        unlabeled = data.unlabeled if len(data.unlabeled) else data.labeled.remove_columns("mask")
        counts = None
        if args.class_aware_sampling or args.rare_class_retries:
            counts = count_labels(data.labeled, data.num_classes)
        return cls(
            data.labeled,
            unlabeled,
            Views.from_arguments(args, rare_classes=() if counts is None else rare_classes(counts)),
            seed,
            args.unlabeled_ratio,
            shows_class=counts > 0 if counts is not None and args.class_aware_sampling else None,
            skip_bad=args.on_bad_sample == "skip",
            epoch_over=args.epoch_over,
        )

    def for_method(self, num_strong_views: int, second_draw: bool) -> "PairedDataset":
        """The same pairs, with the views that a method needs."""
        pairs = copy.copy(self)
        pairs.views = replace(self.views, num_strong_views=num_strong_views)
        pairs.second_draw = second_draw
        return pairs

    def sampler(self, seed: int) -> "PairSampler":
        """The order in which training goes through this dataset."""
        sizes = len(self.labeled), len(self.unlabeled)
        return PairSampler(*sizes, seed, self.unlabeled_ratio, self.shows_class, self.epoch_over)

    def __len__(self) -> int:
        return len(self.sampler(seed=0))

    def __getitem__(self, key: Key) -> Item:
        """Make the views a key names.

        Returns:
            {"labeled": {pixel_values uint8 [3,H,W], labels int64 [H,W]} (absent without a labeled row),
            "unlabeled": {pixel_values uint8 [3,H,W], strong_pixel_values uint8 [K,3,H,W] (or photometry
            float32 [K,12]), cutmix_boxes int64 [K,4] (top, left, height, width), padding_mask bool [H,W], key
            int64 [3]}}; with `skip_bad` also bad_samples int64 [] in "labeled" and "unlabeled".
        """
        _, labeled_index, unlabeled_index = key
        row = self._read(self.unlabeled, unlabeled_index)
        views = {"unlabeled": self.views.unlabeled(row["image"], self._generator(1, key))}
        views["unlabeled"] |= {"key": np.array(key, np.int64), **self._count(row)}
        if self.second_draw:
            views["partner"] = self.views.unlabeled(row["image"], self._generator(2, key))
        if labeled_index != NO_LABEL:
            row = self._read(self.labeled, labeled_index)
            self._look_for_labels(row, labeled_index)
            views["labeled"] = self.views.labeled(row["image"], row["mask"], self._generator(0, key))
            views["labeled"] |= self._count(row)
        return {
            group: {name: torch.from_numpy(array) for name, array in arrays.items()}
            for group, arrays in views.items()
        }

    def names(self, key: Key) -> dict[str, str]:
        """The ids of the rows that a key pairs, by role."""
        _, labeled_index, unlabeled_index = key
        names = {"unlabeled": row_ids(self.unlabeled)[unlabeled_index]}
        return (
            names if labeled_index == NO_LABEL else {"labeled": row_ids(self.labeled)[labeled_index], **names}
        )

    def _read(self, rows: HFDataset, index: int) -> dict[str, Any]:
        """A row and, as `passed`, how many before it could not be read: a function of the index alone."""
        for passed in range(len(rows)):
            try:
                return rows[(index + passed) % len(rows)] | {"passed": passed}
            except InputError as error:
                if not self.skip_bad:
                    raise
                if str(error) not in self._reported:
                    self._reported.add(str(error))
                    logger.warning("skipped: %s", error)
        raise InputError("no image of the training set can be read: run pos-hf check-data")

    def _look_for_labels(self, row: dict[str, Any], index: int) -> None:
        """Masks may change after they were checked: say so of ignored ones, stop when all are."""
        if isinstance(row["mask"], Large) or sum(row["mask"].histogram()[:IGNORE_INDEX]):
            self._without_labels.discard(index)
            return
        if index not in self._without_labels:
            logger.warning("the mask of %s is ignored in all of its pixels", row["id"])
        self._without_labels.add(index)
        if len(self._without_labels) == len(self.labeled):
            raise InputError(NOTHING_LABELED)

    def _count(self, row: dict[str, Any]) -> dict[str, np.ndarray]:
        return {"bad_samples": np.array(row["passed"], np.int64)} if self.skip_bad else {}

    def _generator(self, stream: int, key: Key) -> np.random.Generator:
        # + 1: a seed cannot hold NO_LABEL, which is negative
        return np.random.default_rng([self.seed, stream, *(index + 1 for index in key)])


def _in_parts(rows: HFDataset) -> HFDataset:
    """The rows, large files among them decoded where views are cut from them."""
    decoder = rows.format["format_kwargs"].get("transform")
    return rows.with_transform(replace(decoder, in_parts=True)) if isinstance(decoder, RowDecoder) else rows


class PairSampler(Sampler[Key]):
    """Keys of one epoch: each unlabeled row once, in random order, beside labeled rows that repeat.

    The n-th labeled row of a run is the n-th of an endless sequence of shuffles of the labeled set, so that
    labeled rows are used equally often whatever the two sizes, and so it is with unlabeled rows, of which a
    whole shuffle is an epoch. In class-aware sampling a labeled row is one that shows a class drawn uniformly
    among those that occur.

    Args:
        num_labeled: Labeled rows.
        num_unlabeled: Unlabeled rows.
        seed: Seed of the order.
        unlabeled_ratio: See `PairedDataset`.
        shows_class: See `PairedDataset`.
        epoch_over: "labeled" ends the epoch when each labeled row has been drawn once.
    """

    def __init__(
        self,
        num_labeled: int,
        num_unlabeled: int,
        seed: int,
        unlabeled_ratio: int = 1,
        shows_class: np.ndarray | None = None,
        epoch_over: str = "unlabeled",
    ) -> None:
        self.num_labeled = num_labeled
        self.num_unlabeled = num_unlabeled
        self.seed = seed
        self.unlabeled_ratio = unlabeled_ratio
        self.length = num_unlabeled if epoch_over == "unlabeled" else num_labeled * unlabeled_ratio
        self.rows_by_class = None
        if shows_class is not None:
            self.rows_by_class = [rows for rows in map(np.flatnonzero, shows_class.T) if rows.size]
            if not self.rows_by_class:
                raise InputError(f"{NOTHING_LABELED}: there is no class for class_aware_sampling to draw")
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        epoch = self.epoch
        unlabeled = self._shuffles(0, self.num_unlabeled, epoch * self.length)
        labeled = self._labeled_indices(epoch * -(-self.length // self.unlabeled_ratio))
        for position in range(self.length):
            has_partner = position % self.unlabeled_ratio == 0
            yield epoch, next(labeled) if has_partner else NO_LABEL, next(unlabeled)

    def _labeled_indices(self, draw: int) -> Iterator[int]:
        """The labeled rows from the run's `draw`-th on, without an end."""
        while self.rows_by_class is not None:
            rng = np.random.default_rng([self.seed, 2, draw])
            yield int(rng.choice(self.rows_by_class[rng.integers(len(self.rows_by_class))]))
            draw += 1
        yield from self._shuffles(1, self.num_labeled, draw)

    def _shuffles(self, stream: int, num_rows: int, draw: int) -> Iterator[int]:
        """The `draw`-th row and those after it in an endless sequence of shuffles."""
        shuffle_number, position = divmod(draw, num_rows)
        while True:
            shuffle = np.random.default_rng([self.seed, stream, shuffle_number]).permutation(num_rows)
            yield from shuffle[position:].tolist()
            shuffle_number, position = shuffle_number + 1, 0


def rare_classes(counts: np.ndarray) -> tuple[int, ...]:
    """Classes with fewer pixels than the median class that occurs; `counts` is int [N, C]."""
    pixels = counts.sum(0)
    shown = pixels[pixels > 0]
    return tuple(np.flatnonzero((pixels > 0) & (pixels < np.median(shown))).tolist()) if shown.size else ()


def collate(items: list[Item]) -> dict[str, dict[str, torch.Tensor]]:
    """Stack the views of each group along a new first dimension; items without a labeled row add none."""
    groups = dict.fromkeys(group for item in items for group in item)
    return {group: default_collate([item[group] for item in items if group in item]) for group in groups}
