"""Which rows play which role: labels drawn by seed, a selection set carved from them. No source."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm import tqdm

from pos_hf.data.arguments import DataArguments
from pos_hf.data.folders import read_lines
from pos_hf.data.segmentation_data import SegmentationData, row_ids
from pos_hf.errors import InputError


def assign_roles(
    data: SegmentationData, args: DataArguments, needs_unlabeled: bool = True
) -> SegmentationData:
    """Apply `num_labeled`, `selection_share`, `num_unlabeled` and `num_test` to what a source found.

    Labels given up by `num_labeled` become unlabeled rows; the selection set is taken from the labels left.

    Args:
        data: What the source found.
        args: The dataset.
        needs_unlabeled: The unlabeled role may not be empty.

    Raises:
        InputError: Fewer rows than asked for, a role without rows, or two rows with one id in a role.
    """
    _require_own_ids(data)
    if args.num_labeled is not None and args.num_labeled != len(data.labeled):
        data = _keep_labels(data, args)
    if data.selection is None:
        data = _carve_selection(data, args)
    data = replace(data, unlabeled=_draw(data.unlabeled, args.num_unlabeled, "unlabeled", args.split_seed))
    if data.test is not None:
        # not drawn by split_seed: runs with different splits are compared on one test set
        data = replace(data, test=_draw(data.test, args.num_test, "test", seed=0))
    for role, rows in {**data.masked_roles, "unlabeled": data.unlabeled}.items():
        if len(rows) == 0 and (role != "unlabeled" or needs_unlabeled):
            advice = {
                "labeled": "",
                "unlabeled": ", or set num_labeled to turn labeled images into unlabeled ones",
            }.get(role, ", or remove the folder or split")
            raise InputError(
                f"there is no {role} image in {args.dataset}: add some, correct the lists of ids and the "
                f"suffixes{advice}"
            )
    return data


def _require_own_ids(data: SegmentationData) -> None:
    for role, rows in {**data.masked_roles, "unlabeled": data.unlabeled}.items():
        counts = Counter(row_ids(rows))
        if len(counts) < len(rows):
            id, count = counts.most_common(1)[0]
            raise InputError(
                f"{count} {role} images of {data.name} have the id {id!r}: list each image once, or give "
                "rows ids of their own"
            )


def choose_listed(data: SegmentationData, args: DataArguments) -> SegmentationData:
    """Give the rows of a Hugging Face dataset the roles that lists of ids name, as files get them in folders.

    A scored role that has no split of its own is taken from the labeled one, whose rows in no list become
    unlabeled.

    Args:
        data: By the splits.
        args: The lists.

    Raises:
        InputError: A list cannot be read, names an id that is not there, or one that another list names.
    """
    root = Path(args.dataset) if Path(args.dataset).is_dir() else Path()
    lists = {role: getattr(args, f"{role}_ids") for role in ("labeled", "selection", "test")}
    found: dict[str, Dataset] = {}
    taken: set[str] = set()
    for role, name in lists.items():
        if name is None:
            continue
        rows = data.masked_roles.get(role, data.labeled)
        found[role] = _listed(rows, root / name)
        if rows is data.labeled:
            if twice := taken & set(row_ids(found[role])):
                raise InputError(f"{root / name} lists {min(twice)!r}, which has a role already: give it one")
            taken |= set(row_ids(found[role]))
    others = data.labeled.select([i for i, id in enumerate(row_ids(data.labeled)) if id not in taken])
    if "labeled" in found:
        data = replace(data, unlabeled=_joined(others, data.unlabeled))
    elif taken:
        found["labeled"] = others
    if args.unlabeled_ids is not None:
        _require_own_ids(data)
        found["unlabeled"] = _listed(data.unlabeled, root / args.unlabeled_ids)
    return replace(data, **found)


def _listed(rows: Dataset, list_file: Path) -> Dataset:
    places = {id: index for index, id in enumerate(row_ids(rows))}
    ids = read_lines(list_file)
    if unknown := [id for id in ids if id not in places]:
        known = f", like {next(iter(places))!r}" if places else ""
        raise InputError(f"{list_file} lists {unknown[0]!r}, which is no row's id{known}: correct it")
    return rows.select([places[id] for id in ids])


def _joined(labeled: Dataset, unlabeled: Dataset) -> Dataset:
    """Unlabeled rows, after those of labeled ones without their masks."""
    rows = labeled.select_columns(["id", "image"]).with_format(None)
    return concatenate_datasets([rows, unlabeled.with_format(None)])


def write_split(data: SegmentationData, folder: Path) -> None:
    """Write the ids of every role as ROLE.txt, one a line: `labeled_ids` and its likes read them back."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, rows in (data.masked_roles | {"unlabeled": data.unlabeled}).items():
        (folder / f"{role}.txt").write_text("\n".join([*row_ids(rows), ""]))


def count_labels(rows: Dataset, num_classes: int) -> np.ndarray:
    """Count each class's pixels in each mask; int64 [len(rows), num_classes], ignored pixels left out."""
    counts = np.zeros((len(rows), num_classes), np.int64)
    masks = rows.select_columns("mask")
    for index in tqdm(range(len(rows)), desc="counting labels", unit="mask", delay=2, leave=False):
        # what cannot be decoded shows no class here; whether training may start is decided elsewhere
        with suppress(InputError):
            counts[index] = np.bincount(np.asarray(masks[index]["mask"]).ravel(), minlength=256)[:num_classes]
    return counts


def balanced_order(counts: np.ndarray, seed: int) -> list[int]:
    """Order masks so that the first n of them show every class about equally often, for every n.

    Greedy: the next mask is one that shows the class seen in the fewest masks so far (rarer ones first among
    equals); which of them is random.

    Args:
        counts: Pixels of each class in each mask, [N, C].
        seed: Seed of the choice.
    """
    shows = counts > 0
    frequency = shows.sum(0)
    rng = np.random.default_rng(seed)
    left, order = np.ones(len(counts), bool), []
    seen = np.zeros(counts.shape[1], np.int64)
    while left.any():
        available = (shows & left[:, None]).any(0)
        ranked = np.lexsort((frequency, np.where(available, seen, len(counts) + 1)))
        candidates = np.flatnonzero(left & shows[:, ranked[0]] if available.any() else left)
        chosen = int(rng.choice(candidates))
        order.append(chosen)
        left[chosen] = False
        seen += shows[chosen]
    return order


def _keep_labels(data: SegmentationData, args: DataArguments) -> SegmentationData:
    if args.balanced_split:
        order = np.array(balanced_order(count_labels(data.labeled, data.num_classes), args.split_seed))
    else:
        order = np.random.default_rng(args.split_seed).permutation(len(data.labeled))
    kept, released = _cut(order, args.num_labeled, "labeled")
    decoder = data.labeled.format["format_kwargs"]["transform"]
    unlabeled = _joined(data.labeled.select(released), data.unlabeled).with_transform(decoder)
    return replace(data, labeled=data.labeled.select(kept), unlabeled=unlabeled)


def _carve_selection(data: SegmentationData, args: DataArguments) -> SegmentationData:
    count = int((args.selection_share or 0) * len(data.labeled))
    if count == 0:
        return data
    carved, rest = _cut(
        np.random.default_rng(args.split_seed).permutation(len(data.labeled)), count, "labeled"
    )
    return replace(data, selection=data.labeled.select(carved), labeled=data.labeled.select(rest))


def _draw(rows: Dataset, count: int | None, role: str, seed: int) -> Dataset:
    if count is None:
        return rows
    return rows.select(_cut(np.random.default_rng(seed).permutation(len(rows)), count, role)[0])


def _cut(order: np.ndarray, count: int | None, role: str) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` indices of an order and the others, both sorted."""
    if count is None or not 0 <= count <= len(order):
        raise InputError(f"{count} {role} images are asked for, but there are {len(order)}: lower num_{role}")
    return np.sort(order[:count]), np.sort(order[count:])
