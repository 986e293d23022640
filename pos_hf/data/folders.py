"""Images and masks in plain folders, with or without lists of ids. Other sources have their own files."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_names import read_id2label
from pos_hf.data.decoding import rows_to_dataset
from pos_hf.data.files import read_text
from pos_hf.data.segmentation_data import SegmentationData, class_palette
from pos_hf.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
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
    selection = _scored_rows(args, "selection")
    test = _scored_rows(args, "test")
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
    extra = list_own(root / args.unlabeled, args.image_suffix) if (root / args.unlabeled).is_dir() else {}
    extra = {f"{args.unlabeled}/{id}": path for id, path in extra.items()}
    if args.labeled_ids is None:
        labeled = pair_all(images, masks)
    else:
        labeled = read_rows(root / args.labeled_ids, root, images, masks, args.dataset_format != "folders")
    if args.unlabeled_ids is not None:
        return labeled, read_rows(root / args.unlabeled_ids, root, images | extra, None)
    taken = held_out | {row.image for row in labeled}
    return labeled, [Row(id, path) for id, path in (images | extra).items() if path not in taken]


def _scored_rows(args: DataArguments, role: str) -> list[Row] | None:
    root = Path(args.dataset)
    folder, ids = root / getattr(args, f"{role}_images"), getattr(args, f"{role}_ids")
    if not folder.is_dir():
        return None
    images = list_own(folder, args.image_suffix)
    masks = list_own(root / getattr(args, f"{role}_masks"), args.mask_suffix)
    if ids is None:
        return pair_all(images, masks)
    return read_rows(root / ids, root, images, masks, args.dataset_format != "folders")


def list_own(folder: Path, name_end: str) -> Files:
    """`list_images` for a role that may name files otherwise: where no name has the end, all are listed."""
    return list_images(folder, name_end) or list_images(folder)


def list_images(folder: Path, name_end: str = "") -> Files:
    """Find the images (or masks) of a folder and its subfolders; what is hidden is passed over.

    Args:
        folder: Where to look.
        name_end: What their names end with before the suffix, not part of the id; others are passed over.

    Returns:
        Paths by id, sorted.

    Raises:
        InputError: The folder is missing or leads back into itself, two files differ in their suffix alone,
            or a name is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist: create it, or name another one in the config")
    found: Files = {}
    listed = {_identity(str(folder)): str(folder)}
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        _refuse_second_visits(parent, subfolders, listed)
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in LISTED_SUFFIXES or not stem.endswith(name_end) or _is_hidden(name):
                continue
            stem = stem.removesuffix(name_end)
            id = stem if inside == "." else f"{inside}/{stem}"
            path = os.path.join(parent, name)
            if id in found:
                raise InputError(f"{found[id]} and {path} have the same name: rename or remove one of them")
            found[id] = path
    _refuse_undecodable(found)
    return dict(sorted(found.items()))


def _is_hidden(name: str) -> bool:
    """`._a.png` and `__MACOSX` of a Mac, `.ipynb_checkpoints`, `.cache` and their likes."""
    return name.startswith(".") or name == "__MACOSX"


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _refuse_second_visits(parent: str, subfolders: Iterable[str], listed: dict[tuple[int, int], str]) -> None:
    """Links may lead anywhere but to a folder that is listed already: a few could make millions of paths."""
    for path in (os.path.join(parent, name) for name in subfolders):
        first = listed.setdefault(_identity(path), path)
        if first != path:
            raise InputError(f"the link {path} leads back to {first}, which is listed already: remove it")


def _refuse_undecodable(found: Files) -> None:
    for path in found.values():
        try:
            path.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            raise InputError(f"the name of {shown} is not UTF-8: rename the file") from error


def pair_all(images: Files, masks: Files) -> list[Row]:
    """Pair every image with the mask of the same id.

    Raises:
        InputError: An image has none.
    """
    missing = [id for id in images if id not in masks]
    others = f" (and {len(missing) - 1} others have none)" if len(missing) > 1 else ""
    return [Row(id, path, _mask_of(id, path, masks, others)) for id, path in images.items()]


def _mask_of(id: str, image: str, masks: Files, others: str = "") -> str:
    if id not in masks:
        raise InputError(
            f"the image {image} has no mask{others}: add a mask of the same name, move the image to the "
            "unlabeled folder, or list the labeled images in `labeled_ids`"
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
    for line in read_lines(list_file):
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
