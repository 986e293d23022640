"""Finds the files of a dataset: in a folder and its subfolders, or by a pattern. Nothing is opened."""

import mmap
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Literal, NamedTuple

from pos_hf.data.archives import SUFFIXES as ARCHIVES
from pos_hf.data.archives import has_folder, inside_archive, list_members
from pos_hf.errors import InputError

IMAGE_SUFFIXES = {
    ".bmp", ".dcm", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
}  # fmt: skip
LISTED_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".npz"}  # arrays [H, W, C]: images of any number of channels
MASK_SUFFIXES = LISTED_SUFFIXES | {".mat"}
JSON_TRIED = 5  # of each folder; an annotation format is written by a program, one file like the next

Files = dict[str, str]
"""Path by id: the path inside the folder without its suffix, or what a pattern's stars stand for."""


def walk(
    folder: Path, twice: Literal["refuse", "skip"] = "refuse", archives: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """A folder and every one below it, with the names of its files; what is hidden is passed over.

    Args:
        folder: Where to begin; it may be in an archive.
        archives: Take archives for folders, too.
        twice: What to do about a link to a folder that was listed: a few could make millions of paths.

    Raises:
        InputError: There is such a link, or a name is not UTF-8.
    """
    if parts := inside_archive(folder):
        yield from _walk_archive(*parts)
        return
    listed = {_identity(str(folder)): str(folder)}
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
        seen = {name: _listed_as(os.path.join(parent, name), listed) for name in subfolders}
        again = {name: first for name, first in seen.items() if first != os.path.join(parent, name)}
        if again and twice == "refuse":
            name, first = next(iter(again.items()))
            raise InputError(
                f"the link {os.path.join(parent, name)} leads back to {first}, which is listed already: "
                "remove it"
            )
        subfolders[:] = [name for name in subfolders if name not in again]
        names = sorted(name for name in names if not _is_hidden(name))
        yield parent, names
        for name in names:
            if archives and name.lower().endswith(ARCHIVES):
                yield from _walk_archive(os.path.join(parent, name))


def _walk_archive(archive: str, inside: str = "") -> Iterator[tuple[str, list[str]]]:
    folders: dict[str, list[str]] = defaultdict(list)
    for path in list_members(archive):
        folder, _, name = path.rpartition("/")
        if f"{folder}/".startswith(f"{inside}/" if inside else "") and not any(
            map(_is_hidden, path.split("/"))
        ):
            folders[folder].append(name)
    for folder, names in sorted(folders.items()):
        yield f"{archive}!/{folder}".rstrip("/"), sorted(names)


def list_images(folder: Path, name_end: str = "", suffixes: Set[str] = LISTED_SUFFIXES) -> Files:
    """Find the images (or masks) of a folder and its subfolders.

    Args:
        folder: Where to look.
        name_end: What their names end with before the suffix, not part of the id; others are passed over.
        suffixes: Of the files that are listed, in small letters.

    Returns:
        Paths by id, sorted.

    Raises:
        InputError: The folder is missing or leads back into itself, two files differ in their suffix alone,
            or a name is not UTF-8.
    """
    if not is_folder(folder):
        raise InputError(f"the folder {folder} does not exist: create it, or name another one in the config")
    found: Files = {}
    for parent, names in walk(folder):
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in suffixes or not stem.endswith(name_end):
                continue
            stem = stem.removesuffix(name_end)
            _add(found, stem if inside == "." else f"{inside}/{stem}", os.path.join(parent, name))
    return dict(sorted(found.items()))


class Tree(NamedTuple):
    """All visible files of a folder, to recognise a format by."""

    root: Path
    files: tuple[str, ...]
    """Paths inside the folder, with slashes, sorted."""

    @classmethod
    def of(cls, root: Path) -> "Tree":
        """List a folder, each one in it once; archives as well, where nothing outside of them is an image.

        Raises:
            InputError: A name is not UTF-8, or an archive cannot be read.
        """
        tree = cls(root, tuple(_listed_names(root, archives=False)))
        if tree.ending(*ARCHIVES) and not tree.ending(*LISTED_SUFFIXES, ".parquet", ".arrow"):
            return cls(root, tuple(_listed_names(root, archives=True)))
        return tree

    @property
    def is_packed(self) -> bool:
        """Whether its images are in archives."""
        return any(inside_archive(self.root / name) for name in self.files)

    def ending(self, *suffixes: str) -> list[str]:
        """The files with one of the suffixes, given in small letters."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def holds(self, name: str, *keys: str) -> bool:
        """Whether a JSON file speaks of all keys; it is searched, not parsed."""
        path = self.root / name
        if not path.is_file() or path.stat().st_size == 0:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(f'"{key}"'.encode()) >= 0 for key in keys)

    def has_image_beside(self, name: str) -> bool:
        """Whether an image has the same name but for the suffix."""
        stem = os.path.splitext(name)[0]
        return any((self.root / f"{stem}{suffix}").is_file() for suffix in IMAGE_SUFFIXES)

    def json_holds(self, *keys: str) -> str | None:
        """The first JSON file that speaks of all keys, among the first of each folder."""
        tried: dict[str, int] = {}
        for name in self.ending(".json"):
            folder = os.path.dirname(name)
            tried[folder] = tried.get(folder, 0) + 1
            if tried[folder] <= JSON_TRIED and self.holds(name, *keys):
                return name
        return None


def _listed_names(root: Path, archives: bool) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(parent, name), root).replace(os.sep, "/")
        for parent, names in walk(root, twice="skip", archives=archives)
        for name in names
    )


def is_pattern(place: str) -> bool:
    """Whether an option names files by a pattern, like `*/images/*.jpg`, and not a folder."""
    return "*" in place


def list_place(root: Path, place: str, name_end: str = "", suffixes: Set[str] = LISTED_SUFFIXES) -> Files:
    """Find the files that an option names: a folder, or a pattern.

    In a pattern `*` stands for a part of a name and `**` for any folders, none among them; what the stars
    stand for is the id. The suffix may be left out.

    Args:
        root: The dataset's folder.
        place: A folder, or a pattern, inside `root` unless absolute.
        name_end: As in `list_images`; of a folder's files alone.
        suffixes: As in `list_images`.

    Raises:
        InputError: As `list_images`.
    """
    if not is_pattern(place):
        return list_images(root / place, name_end, suffixes)
    parts = str(root / place).split("/")
    first = next(index for index, part in enumerate(parts) if "*" in part)
    folder = Path("/".join(parts[:first]) or "/")
    if not is_folder(folder):
        raise InputError(f"the folder {folder} does not exist: create it, or name another one in the config")
    fits = _as_regex(parts[first:])
    found: Files = {}
    for parent, names in walk(folder, archives="!" in place):
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in names:
            match = fits.fullmatch(name if inside == "." else f"{inside}/{name}")
            if match and os.path.splitext(name)[1].lower() in suffixes:
                _add(found, "/".join(filter(None, match.groups())), os.path.join(parent, name))
    return dict(sorted(found.items()))


def has_place(root: Path, place: str) -> bool:
    """Whether there is what `list_place` would look into."""
    if not is_pattern(place):
        return is_folder(root / place)
    folder = Path(str(root / place).partition("*")[0] + "x").parent
    return is_folder(folder) and bool(list_place(root, place))


def owners(images: Files, masks: Files) -> dict[str, str]:
    """The image of each mask that has one: its id begins the mask's, or it is alone in a folder of both."""
    folders: dict[str, list[str]] = defaultdict(list)
    for id in images:
        folders[id.rpartition("/")[0]].append(id)
    alone = {folder: ids[0] for folder, ids in folders.items() if folder and len(ids) == 1}
    found = {}
    for id in masks:
        starts = [id, *(id[: match.start()] for match in reversed([*re.finditer(r"[ _./-]", id)]))]
        owner = next((start for start in starts if start in images), None)
        owner = owner or next((alone[start] for start in starts if start in alone), None)
        if owner is not None:
            found[id] = owner
    return found


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, on the disk or in an archive."""
    return path.is_dir() or has_folder(path)


def _as_regex(parts: list[str]) -> re.Pattern[str]:
    pieces = []
    for part in parts[:-1]:
        pieces.append("(?:(.*)/)?" if part == "**" else f"{_part_as_regex(part)}/")
    suffix = "" if "." in parts[-1].rpartition("*")[2] else r"\.[^./]+"
    return re.compile("".join([*pieces, _part_as_regex(parts[-1].replace("**", "*")), suffix]))


def _part_as_regex(part: str) -> str:
    return "([^/]*)".join(re.escape(literal) for literal in part.split("*"))


def _add(found: Files, id: str, path: str) -> None:
    _refuse_undecodable(path)
    if id in found:
        raise InputError(f"{found[id]} and {path} have the same name: rename or remove one of them")
    found[id] = path


def _is_hidden(name: str) -> bool:
    """`._a.png` and `__MACOSX` of a Mac, `.ipynb_checkpoints`, `.cache` and their likes."""
    return name.startswith(".") or name == "__MACOSX"


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _listed_as(path: str, listed: dict[tuple[int, int], str]) -> str:
    """The first path of a folder, which is this one where it is new."""
    return listed.setdefault(_identity(path), path)


def _refuse_undecodable(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InputError(f"the name of {shown} is not UTF-8: rename the file") from error
