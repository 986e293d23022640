"""A model's folder before anything of it is loaded or sent: no file outside is named, none has changed.

Nothing is loaded here: transformers follows every name that a configuration or an index holds.
"""

import re
from pathlib import Path
from typing import Any

from transformers.utils import (
    CONFIG_NAME,
    IMAGE_PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_INDEX_NAME,
)

from pos_hf.errors import InputError, did_you_mean
from pos_hf.files import MANIFEST, changed_file, read_json, read_manifest

CHECKED = (".json", ".py", ".safetensors")
"""Suffixes of a model's own files, in a checkpoint too, whose optimizer no model needs."""


def refuse_mistyped_folder(name: str) -> None:
    """Say that a folder does not exist, before it is taken for a Hub repository and asked for over the net.

    Args:
        name: of a folder, or a Hub id.

    Raises:
        InputError: it is no folder, and reads like a path: it begins with ".", "/" or "~", has more than two
            parts, or its first part is a folder here.
    """
    path = Path(name)
    reads_like_a_path = name.startswith((".", "/", "~")) or len(path.parts) > 2
    if path.is_dir() or not (reads_like_a_path or (len(path.parts) == 2 and path.parent.is_dir())):
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, siblings, f"{path.parent}/") if siblings else ""
    raise InputError(f"there is no model folder '{name}'{near if near.startswith(',') else ''}")


def check_model_folder(folder: Path, subfolder: str = "") -> None:
    """Check what a model's files name, and compare them with the run's manifest where there is one.

    Args:
        folder: of a run, a checkpoint or a model.
        subfolder: where in it the model lies.

    Raises:
        InputError: a file is named that lies elsewhere, or one has changed since it was written.
    """
    place = folder / subfolder
    for name in (*weight_files(place), *code_files(place)):
        require_inside(folder, place / name)
    manifest = read_manifest(folder)
    if manifest is None and (folder / MANIFEST).is_file():
        raise InputError(
            f"'{folder / MANIFEST}' cannot be read: export the model again, or delete that list to load it "
            "unchecked"
        )
    own = {
        name: entry
        for name, entry in (manifest or {}).items()
        if Path(name).parent == Path(subfolder) and Path(name).suffix in CHECKED
    }
    if damage := changed_file(folder, own):
        raise InputError(
            f"the model of '{folder}' is not what was saved ({damage}): export it again, or delete "
            f"{MANIFEST} there if the change is yours"
        )


def weight_files(folder: Path) -> set[str]:
    """The files that a model's weights are split into; none where they lie in one file.

    Raises:
        InputError: the index is damaged, or names something else than weights beside it.
    """
    found = set()
    for index, suffix in ((SAFE_WEIGHTS_INDEX_NAME, ".safetensors"), (WEIGHTS_INDEX_NAME, ".bin")):
        if not (folder / index).is_file():
            continue
        names = read_json(folder / index).get("weight_map")
        for name in names.values() if isinstance(names, dict) else [names]:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(suffix):
                raise _foreign(folder / index, "weight_map", name, f"a {suffix} file beside it")
            found.add(name)
    return found


def code_files(folder: Path) -> set[str]:
    """The modules beside a model that the Auto classes load from its folder.

    Raises:
        InputError: a configuration is damaged, or names something else than a class of a module beside it.
    """
    found = set()
    for config in (CONFIG_NAME, IMAGE_PROCESSOR_NAME):
        if not (folder / config).is_file():
            continue
        classes = read_json(folder / config).get("auto_map") or {}
        for value in classes.values() if isinstance(classes, dict) else [classes]:
            for name in value if isinstance(value, list) else [value]:
                # a name with -- is of another repository; transformers asks before it runs any
                if name is None or (isinstance(name, str) and re.fullmatch(r"[\w./-]+--\w+\.\w+", name)):
                    continue
                if not isinstance(name, str) or not re.fullmatch(r"\w+\.\w+", name):
                    raise _foreign(folder / config, "auto_map", name, "a class of a module beside it")
                found.add(f"{name.split('.')[0]}.py")
    return found


def require_inside(folder: Path, file: Path) -> None:
    """Check that a file lies in a folder once every link is followed.

    Args:
        folder: a model's; a snapshot in the Hub's cache may link to the blobs beside the snapshots.
        file: below it.

    Raises:
        InputError: it is a link that leads out.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    if not file.resolve().is_relative_to(root):
        raise InputError(
            f"'{file}' is a link that leads out of the model's folder: put the file itself there, or do not "
            "trust this folder"
        )


def _foreign(file: Path, key: str, name: Any, expected: str) -> InputError:
    return InputError(
        f"{key} in '{file}' names {name!r}, which is not {expected}: take it out, or do not trust this folder"
    )
