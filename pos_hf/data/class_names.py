"""The names of the classes by id, from the config or a JSON file. Benchmarks' are in benchmarks.py."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import hf_hub_download

from pos_hf.data.arguments import DataArguments
from pos_hf.data.files import read_text
from pos_hf.errors import InputError, first_sentence
from pos_hf.values import IGNORE_INDEX

FOREGROUND_NAMES = ["background", "foreground"]
"""Of binary masks that nothing names."""

EXAMPLE = '{"0": "background", "1": "cat"}'


def read_id2label(args: DataArguments) -> dict[int, str]:
    """Class names by id, in order: `class_names`, or the file `id2label` of the dataset's folder or Hub
    repository.

    Raises:
        InputError: There are none, or their ids are not 0 to C-1.
    """
    if args.class_names is not None:
        return _checked(dict(enumerate(args.class_names)), "class_names")
    path = Path(args.dataset) / args.id2label
    if args.dataset_format == "huggingface" and not Path(args.dataset).is_dir():
        path = _download(args)
    if not path.is_file():
        raise InputError(
            f"the class names {path} do not exist: write a JSON file like {EXAMPLE}, or list `class_names`"
        )
    try:
        names = {int(id): str(label) for id, label in json.loads(read_text(path)).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} does not hold a JSON object like {EXAMPLE}: {first_sentence(error)}"
        ) from error
    return _checked(dict(sorted(names.items())), str(path))


def merge_classes(
    id2label: dict[int, str], merge: Mapping[str, str | None]
) -> tuple[dict[int, str], tuple[int, ...]]:
    """Classes as `merge_labels` says, for masks that hold ids.

    Args:
        id2label: The classes as they are.
        merge: New name by old name; None drops a class: its pixels are background where there is such a
            class, else ignored, as those of a class that becomes `ignore` are.

    Returns:
        The classes that are left, and the new id of every id of 0 to 255.

    Raises:
        InputError: A class is not there.
    """
    if unknown := [name for name in merge if name not in id2label.values()]:
        known = ", ".join(id2label.values())
        raise InputError(f"merge_labels names {unknown[0]!r}, but the classes are {known}: correct it")
    targets = [merge.get(name, name) for name in id2label.values()]
    names = list(dict.fromkeys(name for name in targets if name not in (None, "ignore")))
    ids = {name: id for id, name in enumerate(names)} | {"ignore": IGNORE_INDEX}
    dropped = ids.get("background", IGNORE_INDEX)
    lookup = list(range(IGNORE_INDEX + 1))
    lookup[: len(targets)] = [dropped if name is None else ids[name] for name in targets]
    return _checked({id: str(name) for id, name in enumerate(names)}, "merge_labels"), tuple(lookup)


def _download(args: DataArguments) -> Path:
    try:
        return Path(hf_hub_download(args.dataset, args.id2label, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{args.id2label} of the Hub dataset {args.dataset} cannot be had: {first_sentence(error)}; list "
            "`class_names` in its place"
        ) from error


def _checked(names: dict[int, str], where: str) -> dict[int, str]:
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{where} has the ids {sorted(names)}, but class ids are 0, 1, 2, ... without gaps")
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise InputError(f"{where} names {len(names)} classes, but masks hold 1 to 255 of them")
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    if repeated:
        raise InputError(f"{where} names the class {repeated[0]!r} twice: give each class a name of its own")
    return names
