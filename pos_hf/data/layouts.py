"""Finds images and their masks in folders of any names: what is where, as options of the folder source."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from pos_hf.data.listing import IMAGE_SUFFIXES, LISTED_SUFFIXES, MASK_SUFFIXES, Tree, list_place, owners
from pos_hf.errors import InputError

MASK_WORD = re.compile(
    r"(^|[^a-z])(\w*masks?|labels?|labelids|annotations?|annots?|gts?|ground[ _-]?truths?|truths?|segs?|"
    r"segmentations?|segmentationclass(?:png)?|targets?|manual\d?)([^a-z]|$)|annot$|labelstr$|masks?$"
)
"""In the name of a folder of masks, in small letters."""
SAME_AS_PICTURES = "SegmentationClassPNG"
"""Of LabelMe's export, which holds the masks as arrays, too."""
NEITHER = re.compile(r"segmentationobject/|visuali[sz]ation|/viz/")
"""In the path of pictures that are neither images nor masks of classes, in small letters."""
MASK_ENDS = (
    "_mask",
    "-mask",
    " mask",
    "_masks",
    "_label",
    "_labels",
    "_gt",
    "_seg",
    "_segmentation",
    "_L",
    "_ids",
    ".mask", ".seg", ".label", ".gt", ".segmentation",
)  # fmt: skip
SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "selection", "valid": "selection", "validation": "selection", "dev": "selection",
}  # fmt: skip
LISTS = {
    "labeled_ids": ("train", "training", "labeled", "labelled"),
    "unlabeled_ids": ("unlabeled", "unlabelled"),
    "selection_ids": ("val", "valid", "validation", "selection"),
    "test_ids": ("test",),
}
OPTIONS = {
    "train": ("images", "masks"),
    "selection": ("selection_images", "selection_masks"),
    "test": ("test_images", "test_masks"),
}
UNLABELED_WORDS = ("unlabeled", "unlabelled", "extra")


class Places(NamedTuple):
    """Patterns, or folders, of images and of their masks."""

    images: str
    masks: str
    is_folded: bool = False
    """An image has several masks, of an object each."""


def find_layout(tree: Tree, kind: str = "") -> tuple[dict[str, Any], list[str]]:
    """Find images and their masks by the names of folders and files.

    Args:
        tree: All files.
        kind: Name of the folders of masks, where there are several kinds.

    Returns:
        Options of `DataArguments`, none where the documented layout or nothing was found, and what was
        assumed.

    Raises:
        InputError: Two folders may hold the masks.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for name in tree.files:
        if os.path.splitext(name)[1].lower() in MASK_SUFFIXES and not NEITHER.search(name.lower()):
            folders[os.path.dirname(name)].append(os.path.basename(name))
    if _is_documented(tree, folders):
        return _with_lists(tree, {}, [])
    options: dict[str, Any] = {}
    said: list[str] = []
    by_split: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for folder, names in folders.items():
        by_split[_split(folder)][folder] = names
    without: list[str] = []
    for split, (images, masks) in OPTIONS.items():
        places = _pair(tree, by_split.get(split, {}), kind)
        if places is None:
            without += [f for f in by_split.get(split, {}) if not _is_mask_folder(f)]
            continue
        options |= {images: places.images, masks: places.masks}
        said.append(f"{split} images are {places.images}, their masks {places.masks}")
        if places.is_folded:
            options["fold_masks"] = True
            said.append("of several masks of an image each shows an object: together they are foreground")
    if "images" not in options:
        return _with_lists(tree, {}, []) if _lists(tree) else ({}, [])
    pool = list_place(tree.root, options["images"])
    masks_found = list_place(tree.root, options["masks"], suffixes=MASK_SUFFIXES)
    own = {id: path for id, path in pool.items() if path not in set(masks_found.values())}
    masked = set(owners(own, masks_found).values()) if "fold_masks" in options else masks_found.keys()
    if missing := len(own.keys() - masked):
        options["unannotated_images"] = "unlabeled"
        said.append(f"{missing} images without a mask are unlabeled")
    without += [f for f in folders if any(word in f.lower() for word in UNLABELED_WORDS)]
    without = [f for f in dict.fromkeys(without) if f and f != "unlabeled"]
    if without and not (tree.root / "unlabeled").is_dir():
        place = without[0] if len(without) == 1 else f"{_general(without)}/*"
        if not _names_only(tree, place, without, options):
            without = [max(without, key=lambda folder: len(folders[folder]))]
            place = without[0]
        options["unlabeled"] = place
        said.append(f"images without masks in {', '.join(without[:3])} are unlabeled")
    return _with_lists(tree, options, said)


def _names_only(tree: Tree, place: str, folders: list[str], options: dict[str, Any]) -> bool:
    """Whether all that a place names is in some folders, or is an image or a mask that the options name."""
    try:
        found = set(list_place(tree.root, place).values())
        for option in options.keys() & set(sum(OPTIONS.values(), ())):
            found -= set(list_place(tree.root, options[option], suffixes=MASK_SUFFIXES).values())
    except InputError:  # two files of one name
        return False
    return {os.path.dirname(path) for path in found} <= {str(tree.root / folder) for folder in folders}


def _is_documented(tree: Tree, folders: dict[str, list[str]]) -> bool:
    """Whether images/ and masks/ hold pairs, and no splits in folders of their own."""
    inside = [folder.split("/")[1:] for folder in folders if folder.split("/")[0] == "images"]
    if any(len(parts) == 1 and parts[0].lower() in SPLITS for parts in inside):
        return False
    if not (tree.root / "images").is_dir() or not (tree.root / "masks").is_dir():
        return False
    images = {os.path.splitext(name[7:])[0] for name in tree.files if name.startswith("images/")}
    masks = {os.path.splitext(name[6:])[0] for name in tree.files if name.startswith("masks/")}
    return bool(images & masks) or not _pair(tree, folders)


def _split(folder: str) -> str:
    for part in folder.lower().split("/"):
        for word in re.split(r"[^a-z]+", part):
            if word in SPLITS:
                return SPLITS[word]
        if part in ("imagestr", "labelstr"):
            return "train"
    return "train"


def _is_mask_folder(folder: str) -> bool:
    return any(MASK_WORD.search(part) for part in folder.lower().split("/"))


def _pair(tree: Tree, folders: dict[str, list[str]], kind: str = "") -> Places | None:
    """Patterns, or folders, of the images and of the masks of one split."""
    drawn = {folder: names for folder, names in folders.items() if _is_mask_folder(folder)}
    images = {
        folder: names
        for folder, names in folders.items()
        if folder not in drawn and not any(word in folder.lower() for word in UNLABELED_WORDS)
    }
    if drawn and images:
        kinds: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for folder, names in drawn.items():
            name = next(part for part in reversed(folder.split("/")) if MASK_WORD.search(part.lower()))
            if kind in ("", name):
                kinds[name][folder] = names
        pairs = {name: pair for name, group in kinds.items() if (pair := _by_folders(tree, images, group))}
        if SAME_AS_PICTURES in pairs:
            return pairs[SAME_AS_PICTURES]
        if len(pairs) > 1:
            lines = " or ".join(f"`masks: {name}`" for name in pairs)
            raise InputError(f"{tree.root} has several folders that may hold the masks: set {lines}")
        return next(iter(pairs.values()), None)
    return _beside(tree, images or drawn)


def _by_folders(tree: Tree, images: dict[str, list[str]], drawn: dict[str, list[str]]) -> Places | None:
    image_place, mask_place = _general(list(images)), _general(list(drawn))
    if "*" not in image_place + mask_place:
        plain = Places(image_place, mask_place)
        if _num_pairs(tree, *plain[:2]):
            return plain
    image_names = _stems(images)
    mask_names = _stems(drawn)
    ends = [(("", ""), ("", end)) for end in MASK_ENDS] + [(_affixes(image_names), _affixes(mask_names))]
    for (head, tail), (mask_head, mask_tail) in [(("", ""), ("", "")), *ends]:
        patterns = Places(f"{image_place}/{head}*{tail}", f"{mask_place}/{mask_head}*{mask_tail}")
        if _num_pairs(tree, *patterns[:2]) > len(mask_names) // 2:
            return patterns
    return _folded(tree, Places(f"{image_place}/*", f"{mask_place}/*"))


def _folded(tree: Tree, places: Places) -> Places | None:
    """The places, where images have several masks each."""
    found = list_place(tree.root, places.images)
    drawn = list_place(tree.root, places.masks, suffixes=MASK_SUFFIXES)
    owned = owners({id: path for id, path in found.items() if path not in set(drawn.values())}, drawn)
    several = len(owned) > len(set(owned.values())) and len(owned) > len(drawn) // 2
    return places._replace(is_folded=True) if several else None


def _beside(tree: Tree, folders: dict[str, list[str]]) -> Places | None:
    """Masks in the images' own folders: by the end of the name, or by the suffix."""
    place = _general(list(folders)) if folders else ""
    start = f"{place}/" if place else ""
    names = [name for group in folders.values() for name in group]
    stems = [os.path.splitext(name)[0] for name in names]
    for end in MASK_ENDS:
        drawn = [stem for stem in stems if stem.endswith(end) and stem.removesuffix(end) in stems]
        if drawn:  # of a.mask.png the end is no suffix, but looks like one
            suffix = os.path.splitext(names[stems.index(drawn[0])])[1] if "." in end else ""
            folded = _folded(tree, Places(f"{start}*", f"{start}*{end}*"))
            return folded or Places(f"{start}*", f"{start}*{end}{suffix}")
    suffixes = sorted(
        {os.path.splitext(name)[1] for name in names}, key=lambda s: s.lower() in (".png", ".mat")
    )
    for image_suffix in suffixes[:-1]:
        patterns = Places(f"{start}*{image_suffix}", f"{start}*{suffixes[-1]}")
        if image_suffix.lower() in LISTED_SUFFIXES and _num_pairs(tree, *patterns[:2]):
            return patterns
    return None


def _num_pairs(tree: Tree, images: str, masks: str) -> int:
    try:
        drawn = list_place(tree.root, masks, suffixes=MASK_SUFFIXES)
        found = list_place(tree.root, images)
    except InputError:  # two files of one name: these patterns do not tell them apart
        return 0
    paths = set(drawn.values())
    return sum(id in drawn and path not in paths for id, path in found.items())


def _stems(folders: dict[str, list[str]]) -> list[str]:
    return [os.path.splitext(name)[0] for names in folders.values() for name in names]


def _affixes(stems: list[str]) -> tuple[str, str]:
    """What all names begin and end with, digits left out of it."""
    head = re.sub(r"\d+$", "", _common_start(stems))
    tail = re.sub(r"^\d+", "", _common_start([stem[::-1] for stem in stems])[::-1])
    return (head, tail) if len(set(stems)) > 1 and len(head) + len(tail) < min(map(len, stems)) else ("", "")


def _common_start(words: list[str]) -> str:
    first, last = min(words), max(words)  # what these two share, all words between them share as well
    return next(
        (first[:index] for index, letter in enumerate(first) if last[index : index + 1] != letter), first
    )


def _general(folders: list[str]) -> str:
    """One pattern of folders: a star where their parts differ, two where their depths do."""
    parts = [folder.split("/") for folder in folders]
    if len({len(part) for part in parts}) > 1:
        common = os.path.commonpath(folders)
        return f"{common}/**" if common else "**"
    return "/".join(map(_general_part, map(list, zip(*parts, strict=True))))


def _general_part(names: list[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    # of shards, train-0.tar! and train-1.tar!, what they share tells them from those of other splits
    return f"{_common_start(names)}*!" if all(name.endswith("!") for name in names) else "*"


def _lists(tree: Tree) -> dict[str, str]:
    """Lists of ids by option, where there is one for it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in tree.ending(".txt", ".csv"):
        stem = Path(name).stem.lower()
        for option, stems in LISTS.items():
            if stem in stems and not tree.is_packed and _names_an_image(tree, name):
                found[option].append(name)
    return {option: names[0] for option, names in found.items() if len(names) == 1}


def _names_an_image(tree: Tree, name: str) -> bool:
    """Whether one of the first two lines of a list, the first may be a head, names an image."""
    with (tree.root / name).open(encoding="utf-8-sig", errors="replace") as file:
        lines = [next(file, "").strip() for _ in range(2)]
    words = {os.path.basename(part) for line in lines for part in (line, *re.split(r"[,\t ]", line))}
    words |= {os.path.basename(line.split(",")[0]) for line in lines}
    known = {os.path.basename(file) for file in tree.ending(*IMAGE_SUFFIXES)}
    return bool(words & (known | {os.path.splitext(name)[0] for name in known}))


def _with_lists(tree: Tree, options: dict[str, Any], said: list[str]) -> tuple[dict[str, Any], list[str]]:
    lists = _lists(tree)
    if "labeled_ids" not in lists or any(option in options for option in ("selection_images", "test_images")):
        return options, said
    return options | lists, [*said, f"the images are listed in {', '.join(lists.values())}"]
