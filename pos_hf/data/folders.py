"""Images and masks in plain folders, with or without lists of ids. Other sources have their own files."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.colours import class_palette
from pos_hf.data.decoding import rows_to_dataset
from pos_hf.data.drawing import blank, drawing
from pos_hf.data.files import Stored, pages_of, read_text
from pos_hf.data.listing import (
    LISTED_SUFFIXES,
    MASK_SUFFIXES,
    Files,
    has_place,
    is_folder,
    is_pattern,
    list_place,
    owners,
)
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import InputError

Masks = Mapping[str, str | Stored]
"""A mask's path, or what it is drawn from, by id."""


class Row(NamedTuple):
    """Where one row's files are; `mask` is None for unlabeled rows."""

    id: str
    image: str
    mask: str | Stored | None = None


class Pool(NamedTuple):
    """Images that may play one role, and the masks that there are."""

    images: Files
    masks: Masks
    pictures: frozenset[str] = frozenset()
    """Paths of the masks that are pictures of their own, which are no images."""


def load_folders(args: DataArguments) -> SegmentationData:
    """Read a dataset laid out in folders (see `DataArguments` for the layout); nothing is decoded yet.

    Raises:
        InputError: A folder, a list, an image or a mask is missing.
    """
    root = Path(args.dataset)
    require_folder(root)
    train = list_pool(args, "images", "masks", may_be_absent=args.labeled_ids is not None)
    pools = {
        "train": train,
        "selection": scored_pool(args, "selection", train),
        "test": scored_pool(args, "test", train),
    }
    return assemble(args, pools, read_id2label(args))


def require_folder(root: Path) -> None:
    """Refuse a dataset that is not there."""
    if not is_folder(root):
        raise InputError(
            f"the dataset folder {root} does not exist: `dataset` is an existing folder, or `shapes` for "
            "the generated images"
        )


def list_pool(args: DataArguments, images: str, masks: str, may_be_absent: bool = False) -> Pool:
    """List what two options of the arguments name.

    Args:
        args: The dataset.
        images: The option of the images.
        masks: The option of their masks.
        may_be_absent: A list of paths says where the files are.
    """
    root, image_place, mask_place = Path(args.dataset), getattr(args, images), getattr(args, masks)
    if may_be_absent and not has_place(root, image_place):
        return Pool({}, {})
    ends = (args.image_suffix, args.mask_suffix)
    if images == "images":
        found = list_place(root, image_place, ends[0])
        drawn = list_place(root, mask_place, ends[1], MASK_SUFFIXES)
    else:
        found = list_own(root, image_place, ends[0])
        drawn = list_own(root, mask_place, ends[1], masks=True)
    if args.split_pages:
        found, drawn = split_pages(found), split_pages(drawn)
    # a mask beside its image may be listed among the images as well
    pictures = frozenset(path for id, path in drawn.items() if found.get(id) != path)
    found = {id: path for id, path in found.items() if path not in pictures}
    return Pool(found, fold(found, drawn) if args.fold_masks else drawn, pictures)


def scored_pool(args: DataArguments, role: str, train: Pool) -> Pool | None:
    """What the options of the selection or test role name; None where they name nothing that is there.

    Args:
        args: The dataset.
        role: Whose images are scored.
        train: The images to train on, among which a list may name some.
    """
    images, masks = f"{role}_images", f"{role}_masks"
    if has_place(Path(args.dataset), getattr(args, images)):
        return list_pool(args, images, masks)
    return None if getattr(args, f"{role}_ids") is None else train


def list_own(root: Path, place: str, name_end: str, masks: bool = False) -> Files:
    """`list_place` for a role that may name files otherwise: where no name has the end, all are listed."""
    suffixes = MASK_SUFFIXES if masks else LISTED_SUFFIXES
    return list_place(root, place, name_end, suffixes) or list_place(root, place, suffixes=suffixes)


def fold(images: Files, masks: Files) -> Masks:
    """The masks of one object each as one mask an image; those of no image stay as they are."""
    found: dict[str, list[str]] = {}
    of = owners(images, masks)
    for id, path in masks.items():
        found.setdefault(of.get(id, id), []).append(path)
    return {
        id: drawing(f"objects of {images[id]}", [(1, {"file": path}) for path in paths], 0, image=images[id])
        if id in images
        else paths[0]
        for id, paths in found.items()
    }


def split_pages(files: Files) -> Files:
    """The pages of TIFFs in place of the files, numbered after their ids."""
    pages = {id: pages_of(path) for id, path in files.items()}
    return {
        f"{id}/{number:0{len(str(len(paths)))}d}" if len(paths) > 1 else id: path
        for id, paths in pages.items()
        for number, path in enumerate(paths, 1)
    }


def assemble(
    args: DataArguments,
    pools: Mapping[str, Pool | None],
    id2label: dict[int, str],
    palette: list[list[int]] | None = None,
) -> SegmentationData:
    """Give the images of a source their roles.

    Args:
        args: Lists of ids, and what an image without a mask is.
        pools: Of "train", and of "selection" and "test" where there are any.
        id2label: The classes.
        palette: Their colours; None draws some.
    """
    root = Path(args.dataset)
    if args.unannotated_images == "background":
        background = next((id for id, name in id2label.items() if name == "background"), 0)
        pools = {
            role: pool
            and pool._replace(
                masks={id: blank(path, background) for id, path in pool.images.items()} | dict(pool.masks)
            )
            for role, pool in pools.items()
        }
    selection = _scored_rows(args, "selection", pools.get("selection"))
    test = _scored_rows(args, "test", pools.get("test"))
    train = pools["train"]
    assert train is not None
    held_out = {os.path.abspath(row.image) for row in (selection or []) + (test or [])}
    pictures = {os.path.abspath(path) for pool in pools.values() if pool for path in pool.pictures}
    labeled, unlabeled = _training_rows(args, train, held_out, pictures)
    return SegmentationData(
        name=root.resolve().name.removesuffix("!"),
        labeled=to_dataset(labeled, masked=True),
        unlabeled=to_dataset(unlabeled, masked=False),
        selection=None if selection is None else to_dataset(selection, masked=True),
        test=None if test is None else to_dataset(test, masked=True),
        id2label=id2label,
        palette=palette or class_palette(id2label),
    )


def _training_rows(
    args: DataArguments, pool: Pool, held_out: set[str], pictures: set[str]
) -> tuple[list[Row], list[Row]]:
    """Labeled and unlabeled rows: none that is scored (`held_out`), or a mask of any role (`pictures`)."""
    root = Path(args.dataset)
    images, masks, _ = pool
    extra = list_own(root, args.unlabeled, args.image_suffix) if has_place(root, args.unlabeled) else {}
    extra = split_pages(extra) if args.split_pages else extra
    known = set(images.values())  # a pattern may name some of them again
    extra = {
        id if is_pattern(args.unlabeled) else f"{args.unlabeled}/{id}": path
        for id, path in extra.items()
        if path not in known
    }
    if args.labeled_ids is None:
        own = {id: path for id, path in images.items() if os.path.abspath(path) not in held_out}
        labeled = _annotated_rows(args, pool._replace(images=own))
    else:
        labeled = read_rows(root / args.labeled_ids, root, images, masks, args.dataset_format != "folders")
        if twice := [row.image for row in labeled if os.path.abspath(row.image) in held_out]:
            raise InputError(
                f"{root / args.labeled_ids} lists {twice[0]}, which is a test or selection image as well: "
                "give it one of the roles"
            )
    if args.unlabeled_ids is not None:
        return labeled, read_rows(root / args.unlabeled_ids, root, images | extra, None)
    taken = held_out | pictures | {os.path.abspath(row.image) for row in labeled}
    others = {id: path for id, path in (images | extra).items() if os.path.abspath(path) not in taken}
    return labeled, [Row(id, path) for id, path in others.items()]


def _scored_rows(args: DataArguments, role: str, pool: Pool | None) -> list[Row] | None:
    if pool is None:
        return None
    root, ids = Path(args.dataset), getattr(args, f"{role}_ids")
    if ids is None:
        return _annotated_rows(args, pool)
    return read_rows(root / ids, root, pool.images, pool.masks, args.dataset_format != "folders")


def _annotated_rows(args: DataArguments, pool: Pool) -> list[Row]:
    """The images with their masks; what those without are, the option says."""
    images, masks, _ = pool
    if args.unannotated_images is None:
        return pair_all(images, masks)
    return [Row(id, path, masks[id]) for id, path in images.items() if id in masks]


def pair_all(images: Files, masks: Masks) -> list[Row]:
    """Pair every image with the mask of the same id.

    Raises:
        InputError: An image has none.
    """
    missing = [id for id in images if id not in masks]
    others = f" (and {len(missing) - 1} others have none)" if len(missing) > 1 else ""
    return [Row(id, path, _mask_of(id, path, masks, others)) for id, path in images.items()]


def _mask_of(id: str, image: str, masks: Masks, others: str = "") -> str | Stored:
    if id not in masks:
        raise InputError(
            f"the image {image} has no mask{others}: add a mask of the same name, move the image to the "
            "unlabeled folder, list the labeled images in `labeled_ids`, or set `unannotated_images: "
            "unlabeled`"
        )
    return masks[id]


def training_masks(args: DataArguments) -> list[str]:
    """Paths of the masks to train on."""
    root = Path(args.dataset)
    pool = list_pool(args, "images", "masks", may_be_absent=args.labeled_ids is not None)
    if args.labeled_ids is None:
        return [path for path in pool.masks.values() if isinstance(path, str)]
    rows = read_rows(root / args.labeled_ids, root, pool.images, pool.masks)
    return [row.mask for row in rows if isinstance(row.mask, str)]


def orphan_masks(args: DataArguments) -> list[str]:
    """Paths of the training masks that no image has."""
    images, masks, _ = list_pool(args, "images", "masks", may_be_absent=args.labeled_ids is not None)
    return [path for id, path in masks.items() if id not in images and isinstance(path, str)]


def read_rows(
    list_file: Path, root: Path, images: Files, masks: Masks | None, is_benchmark: bool = False
) -> list[Row]:
    """Read a list of rows: a line is an image's id, file name or path, or an image's and a mask's path.

    Args:
        list_file: Text file.
        root: Folder the paths are relative to.
        images: The known images.
        masks: Their masks; None reads unlabeled rows, whose second path may be anything.
        is_benchmark: A listed mask that is not there stands for the image's own among `masks`: published
            lists name COCO's by a layout of their authors', and Cityscapes' by the preprocessed ones.

    Raises:
        InputError: The list is missing, or names a file that is not there or lies outside of `root`.
    """
    ids = {os.path.normpath(path): id for id, path in images.items()}
    rows = []
    for line in _listed(list_file, root, images):
        id = line if line in images else ids.get(os.path.normpath(root / line))
        stem, suffix = os.path.splitext(line)
        if id is None and stem in images and images[stem].endswith(suffix):
            id = stem
        if id is not None:
            rows.append(Row(id, images[id], None if masks is None else _mask_of(id, images[id], masks)))
            continue
        pair = _find_pair(line, root, masked=masks is not None)
        if pair is None and is_benchmark and masks is not None:
            image = (_find_pair(line, root, masked=False) or [""])[0]
            id = ids.get(os.path.normpath(image))
            if id is not None and id in masks:
                rows.append(Row(id, image, masks[id]))
                continue
        if pair is None:
            raise InputError(
                f'{list_file} lists "{line}", which is neither an image\'s name nor a pair of existing '
                "files: correct that line"
            )
        for path in pair:
            if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root)):
                raise InputError(f'{list_file} lists "{line}", which lies outside {root}: correct that line')
        id = os.path.splitext(os.path.relpath(pair[0], root))[0]
        rows.append(Row(ids.get(os.path.normpath(pair[0]), id), *pair))
    return rows


def _listed(list_file: Path, root: Path, images: Files) -> list[str]:
    """The lines of a list; of a CSV file the first two columns, without its head, which names no image."""
    lines = read_lines(list_file)
    if list_file.suffix.lower() != ".csv":
        return lines
    rows = [[cell.strip() for cell in row[:2]] for row in csv.reader(lines)]
    first = rows[0][0] if rows else ""
    if first not in images and not (root / first).is_file() and not Path(first).suffix:
        rows = rows[1:]
    return ["\t".join(filter(None, row)) for row in rows]


def _find_pair(line: str, root: Path, *, masked: bool) -> list[str] | None:
    """The files of an `image mask` line, or its image alone; the paths may hold spaces themselves."""
    words = line.split(" ") if "\t" not in line else line.split("\t")
    glue = " " if "\t" not in line else "\t"
    for count in range(len(words), 0, -1):
        image, mask = (str(root / glue.join(part).strip()) for part in (words[:count], words[count:]))
        if os.path.isfile(image) and (not masked or os.path.isfile(mask)):
            return [image, mask] if masked else [image]
    return None


def read_lines(list_file: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        InputError: It is missing or no text.
    """
    try:
        return [line for line in map(str.strip, read_text(list_file).splitlines()) if line]
    except UnicodeDecodeError as error:
        raise InputError(f"the list {list_file} is no text file: write one id a line") from error
    except OSError as error:
        raise InputError(
            f"the list {list_file} does not exist or cannot be read: write it, one id a line, or leave its "
            "option out"
        ) from error


def to_dataset(rows: Iterable[Row], *, masked: bool) -> Dataset:
    """Make a `Dataset` of rows, with or without their masks."""
    rows = list(rows)
    masks = [row.mask for row in rows] if masked else None
    return rows_to_dataset([row.id for row in rows], [row.image for row in rows], masks)
