"""Rows of a Hugging Face dataset by column names: a Hub id, parquet files, or `save_to_disk`'s."""

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Value, load_dataset, load_from_disk
from datasets.utils.logging import CRITICAL, get_verbosity, set_verbosity
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.colours import class_palette
from pos_hf.data.decoding import STORED_IMAGE
from pos_hf.data.segmentation_data import SegmentationData, row_ids
from pos_hf.errors import InputError, first_sentence


def load_huggingface(args: DataArguments) -> SegmentationData:
    """Read the splits and columns that the arguments name.

    Raises:
        InputError: There is no such split or column, or a row lacks its id, image or mask.
    """
    root = Path(args.dataset)
    splits = _read_splits(root, args)
    if args.labeled_split not in splits:
        raise InputError(
            f"{args.dataset} has no split {args.labeled_split!r}: set labeled_split to one of "
            f"{', '.join(splits)}"
        )
    labeled = _rows(splits, args.labeled_split, args, masked=True)
    assert labeled is not None
    unlabeled = _rows(splits, args.unlabeled_split, args, masked=False)
    id2label = read_id2label(args)
    return SegmentationData(
        name=args.dataset if not root.is_dir() else root.resolve().name,
        labeled=labeled,
        unlabeled=labeled.select([]).remove_columns("mask") if unlabeled is None else unlabeled,
        selection=_rows(splits, args.selection_split, args, masked=True),
        test=_rows(splits, args.test_split, args, masked=True),
        id2label=id2label,
        palette=class_palette(id2label),
    )


def _read_splits(root: Path, args: DataArguments) -> DatasetDict:
    verbosity = get_verbosity()
    set_verbosity(CRITICAL)  # what is logged of a damaged file is raised as well
    try:
        return _load(root, args)
    except InputError:
        raise
    except Exception as error:  # what the Hub, the network, Arrow and Parquet raise has no common base
        where = "the folder" if root.is_dir() else "the Hub dataset"
        raise InputError(f"{where} {args.dataset} cannot be loaded: {first_sentence(error)}") from error
    finally:
        set_verbosity(verbosity)


def _load(root: Path, args: DataArguments) -> DatasetDict:
    if not root.is_dir():
        return load_dataset(args.dataset)
    if (root / "dataset_dict.json").is_file():
        return load_from_disk(args.dataset)
    if (root / "state.json").is_file():
        return DatasetDict({args.labeled_split: load_from_disk(args.dataset)})
    names = (args.labeled_split, args.unlabeled_split, args.selection_split, args.test_split)
    parquet = sorted(path for path in root.rglob("*.parquet") if path.is_file())
    files = {name: [str(path) for path in parquet if _is_shard(path.stem, name)] for name in names}
    if not any(files.values()):
        raise InputError(
            f"{root} holds neither a saved dataset nor parquet files named after the splits, like "
            f"{args.labeled_split}-00000-of-00001.parquet"
        )
    return load_dataset("parquet", data_files={name: found for name, found in files.items() if found})


def _is_shard(stem: str, split: str) -> bool:
    """Whether a file holds a part of a split: `train`, `train-0`, `train-00000-of-00002`, hashed or not.

    Not `train_extra-00000-of-00001`, which is another split's.
    """
    return re.fullmatch(rf"{re.escape(split)}([-_]?\d+)?([-_]of[-_]\d+)?(-[0-9a-f]{{16}})?", stem) is not None


def _rows(splits: DatasetDict, split: str, args: DataArguments, *, masked: bool) -> Dataset | None:
    if split not in splits:
        return None
    rows = splits[split]
    names = {"id": args.id_column, "image": args.image_column} | (
        {"mask": args.mask_column} if masked else {}
    )
    for column in filter(None, names.values()):
        if column not in rows.column_names:
            raise InputError(
                f"the split {split!r} of {args.dataset} has no column {column!r}: its columns are "
                f"{', '.join(rows.column_names)}"
            )
    rows = rows.select_columns([column for column in names.values() if column is not None])
    rows = rows.rename_columns({column: name for name, column in names.items() if column not in (None, name)})
    if args.id_column is None:
        rows = rows.add_column("id", [f"{split}_{index:06d}" for index in range(len(rows))])
    _require_values(rows, f"the split {split!r} of {args.dataset}")
    if rows.features["id"] != Value("string"):
        ids = [str(id) for id in row_ids(rows)]
        rows = rows.remove_columns("id").add_column("id", ids)
    for column in names.keys() - {"id"}:
        rows = rows.cast_column(column, STORED_IMAGE)
        _require_bytes(rows, column, args)
    return rows


def _require_values(rows: Dataset, where: str) -> None:
    for column in rows.column_names:
        empty = pc.sum(pc.is_null(_stored_column(rows, column))).as_py() or 0
        if empty:
            raise InputError(
                f"{empty} of {len(rows)} rows of {where} have no {column}: fill them in, or move them to "
                "another split"
            )


def _require_bytes(rows: Dataset, column: str, args: DataArguments) -> None:
    """Refuse rows that name a file in place of holding it: a stranger's could name any file of this machine.

    What a Hub dataset of plain files brought along lies in the cache.
    """
    values = _stored_column(rows, column)
    for index in pc.indices_nonzero(pc.is_null(pc.struct_field(values, "bytes"))).to_pylist():
        path = pc.struct_field(values, "path")[index].as_py()
        if path is None or not _came_along(path, args.dataset):
            named = "" if path is None else f" but names the file {path}, which is not read"
            raise InputError(
                f"row {index} of {args.dataset} does not hold its {column}{named}: store the files' bytes, "
                "as `Dataset.save_to_disk` does"
            )


def _came_along(path: str, repository: str) -> bool:
    if Path(repository).is_dir():
        return False
    cache = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="dataset")
    return Path(os.path.normpath(path)).is_relative_to(cache)


def _stored_column(rows: Dataset, column: str) -> pa.ChunkedArray:
    return rows.with_format("arrow").select_columns(column)[:].column(column)
