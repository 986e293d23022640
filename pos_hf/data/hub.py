"""Rows of a Hugging Face dataset by column names: a Hub id, parquet files, or `save_to_disk`'s."""

from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.utils.logging import CRITICAL, get_verbosity, set_verbosity

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.decoding import STORED_IMAGE
from pos_hf.data.segmentation_data import SegmentationData, class_palette
from pos_hf.errors import InputError, first_sentence


def load_huggingface(args: DataArguments) -> SegmentationData:
    """Read the splits and columns that the arguments name.

    Raises:
        InputError: There is no such split or column.
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
    names = (args.labeled_split, args.unlabeled_split, args.selection_split, args.test_split)
    files = {name: sorted(map(str, root.rglob(f"{name}*.parquet"))) for name in names}
    if not any(files.values()):
        raise InputError(f"{root} holds neither a saved dataset nor parquet files named after the splits")
    return load_dataset("parquet", data_files={name: found for name, found in files.items() if found})


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
    for column in names.keys() - {"id"}:
        rows = rows.cast_column(column, STORED_IMAGE)
    return rows
