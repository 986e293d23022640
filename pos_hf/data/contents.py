"""Answers what is in a folder, for commands that take a folder in place of a config."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pos_hf.data.arguments import DataArguments
from pos_hf.data.loading import load_roles
from pos_hf.data.recognition import resolve


@dataclass(frozen=True)
class FolderContents:
    """What `describe_folder` found.

    Args:
        options: Of `DataArguments`, those that differ from their defaults, `dataset` first: as a config, they
            load the folder without looking again.
        roles: Images of each role: labeled, unlabeled, selection, test; a role without images is left out.
        class_names: In the order of ids.
        assumptions: What was recognised and assumed, a sentence each.
    """

    options: dict[str, Any]
    roles: dict[str, int]
    class_names: list[str]
    assumptions: tuple[str, ...]


def describe_folder(folder: str | Path, needs_unlabeled: bool = False, **options: Any) -> FolderContents:
    """Look what is in a folder; nothing is written, and of pictures a sample is decoded at most.

    Args:
        folder: Of a dataset, or `shapes`.
        needs_unlabeled: Without unlabeled images it is refused.
        options: Of `DataArguments`, where something is known.

    Raises:
        InputError: The folder is not understood: what was seen, and what to do.
    """
    asked = DataArguments(dataset=str(folder), **options)
    data = load_roles(asked, needs_unlabeled)
    resolved, _ = resolve(asked)
    roles = {role: len(rows) for role, rows in {**data.masked_roles, "unlabeled": data.unlabeled}.items()}
    return FolderContents(
        options=differing_options(resolved),
        roles={role: count for role, count in roles.items() if count},
        class_names=list(data.id2label.values()),
        assumptions=data.assumptions,
    )


def differing_options(args: DataArguments) -> dict[str, Any]:
    """What a config must say to load the same: `dataset`, and the options that differ from their defaults."""
    defaults = DataArguments()
    return {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(args)
        if field.name == "dataset" or getattr(args, field.name) != getattr(defaults, field.name)
    }
