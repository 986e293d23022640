"""Images and masks in plain folders, with or without lists of ids. Other sources have their own files."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.decoding import rows_to_dataset
from pos_hf.data.segmentation_data import SegmentationData, class_palette
from pos_hf.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LISTED_SUFFIXES = IMAGE_SUFFIXES | {".npy"}  # arrays [H, W, C]: images of any number of channels

Files = dict[str, str]
"""Path by id; the id is the path inside the folder, without its suffix."""


class Row(NamedTuple):
    """Where one row's files are; `mask` is None for unlabeled rows."""

    id: str
    image: str
    mask: str | None = None


def load_folders(args: DataArguments) -> SegmentationData:
    """Read a dataset laid out in folders (see `DataArguments` for the layout); nothing is decoded yet.

    Raises:
        InputError: A folder, a list, an image or a mask is missing.
    """
    root = Path(args.dataset)
    if not root.is_dir():
        raise InputError(
            f"the dataset folder {root} does not exist: `dataset` is an existing folder, or `shapes` for "
            "the generated images"
        )
    selection = _scored_rows(args, args.selection_images, args.selection_masks, args.selection_ids)
    test = _scored_rows(args, args.test_images, args.test_masks, args.test_ids)
    labeled, unlabeled = _training_rows(
        args, held_out={row.image for row in (selection or []) + (test or [])}
    )
    id2label = read_id2label(args)
    return SegmentationData(
        name=root.resolve().name,
        labeled=to_dataset(labeled, masked=True),
        unlabeled=to_dataset(unlabeled, masked=False),
        selection=None if selection is None else to_dataset(selection, masked=True),
        test=None if test is None else to_dataset(test, masked=True),
        id2label=id2label,
        palette=class_palette(id2label),
    )


def _training_rows(args: DataArguments, held_out: set[str]) -> tuple[list[Row], list[Row]]:
    root = Path(args.dataset)
    images = list_images(root / args.images, args.image_suffix)
    masks = list_images(root / args.masks, args.mask_suffix)
    extra = list_images(root / args.unlabeled, args.image_suffix) if (root / args.unlabeled).is_dir() else {}
    extra = {f"{args.unlabeled}/{id}": path for id, path in extra.items()}
    if args.labeled_ids is None:
        labeled = pair_all(images, masks)
    else:
        labeled = read_rows(root / args.labeled_ids, root, images, masks, args.dataset_format != "folders")
    if args.unlabeled_ids is not None:
        return labeled, read_rows(root / args.unlabeled_ids, root, images | extra, None)
    taken = held_out | {row.image for row in labeled}
    return labeled, [Row(id, path) for id, path in (images | extra).items() if path not in taken]


def _scored_rows(args: DataArguments, images_name: str, masks_name: str, ids: str | None) -> list[Row] | None:
    root = Path(args.dataset)
    if not (root / images_name).is_dir():
        return None
    images = list_images(root / images_name, args.image_suffix)
    masks = list_images(root / masks_name, args.mask_suffix)
    if ids is None:
        return pair_all(images, masks)
    return read_rows(root / ids, root, images, masks, args.dataset_format != "folders")


def list_images(folder: Path, name_end: str = "") -> Files:
    """Find the images (or masks) of a folder and its subfolders.

    Args:
        folder: Where to look.
        name_end: What their names end with before the suffix, not part of the id; others are passed over.

    Returns:
        Paths by id, sorted.

    Raises:
        InputError: The folder is missing or leads back into itself, or two files differ in their suffix
            alone.
    """
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist: create it, or name another one in the config")
    found: Files = {}
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        _refuse_loops(folder, Path(parent), subfolders)
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in LISTED_SUFFIXES or not stem.endswith(name_end):
                continue
            stem = stem.removesuffix(name_end)
            id = stem if inside == "." else f"{inside}/{stem}"
            path = os.path.join(parent, name)
            if id in found:
                raise InputError(f"{found[id]} and {path} have the same name: rename or remove one of them")
            found[id] = path
    return dict(sorted(found.items()))


def _refuse_loops(folder: Path, parent: Path, subfolders: list[str]) -> None:
    for link in (parent / name for name in subfolders if (parent / name).is_symlink()):
        walked = [path for path in (parent, *parent.parents) if path.is_relative_to(folder)]
        if any(path.resolve().is_relative_to(link.resolve()) for path in walked):
            raise InputError(f"the link {link} leads back to a folder that it lies in: remove it")


def pair_all(images: Files, masks: Files) -> list[Row]:
    """Pair every image with the mask of the same id.

    Raises:
        InputError: An image has none.
    """
    return [Row(id, path, _mask_of(id, path, masks)) for id, path in images.items()]


def _mask_of(id: str, image: str, masks: Files) -> str:
    if id not in masks:
        raise InputError(
            f"the image {image} has no mask: add a mask of the same name, move the image to the unlabeled "
            "folder, or list the labeled images in `labeled_ids`"
        )
    return masks[id]


def orphan_masks(args: DataArguments) -> list[str]:
    """Paths of the training masks that no image has."""
    root = Path(args.dataset)
    images = list_images(root / args.images, args.image_suffix)
    return [path for id, path in list_images(root / args.masks, args.mask_suffix).items() if id not in images]


def read_rows(
    list_file: Path, root: Path, images: Files, masks: Files | None, is_benchmark: bool = False
) -> list[Row]:
    """Read a list of rows: a line is an id, or (the published form) an image's and a mask's path.

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
    ids = {path: id for id, path in images.items()}
    rows = []
    for line in read_lines(list_file):
        if line in images:
            mask = None if masks is None else _mask_of(line, images[line], masks)
            rows.append(Row(line, images[line], mask))
            continue
        image, *rest = line.split()
        paths = [str(root / part) for part in ([image] if masks is None else [image, *rest])]
        for path in paths:
            if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root)):
                raise InputError(f'{list_file} lists "{line}", which lies outside {root}: correct that line')
        if is_benchmark and masks is not None and len(paths) == 2 and not os.path.isfile(paths[1]):
            paths[1] = masks.get(ids.get(paths[0], ""), paths[1])
        if (masks is not None and len(paths) != 2) or not all(map(os.path.isfile, paths)):
            raise InputError(
                f'{list_file} lists "{line}", which is neither an image\'s name without suffix nor a pair of '
                "existing files: correct that line"
            )
        rows.append(Row(ids.get(paths[0], os.path.splitext(image)[0]), *paths))
    return rows


def read_lines(list_file: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        InputError: It is missing or no text.
    """
    try:
        return [line for line in map(str.strip, list_file.read_text().splitlines()) if line]
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
