"""Arrows between modules point one way: down the map of CONTRIBUTING.md, and never in a circle."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.launching import ROOT

PACKAGE = ROOT / "pos_hf"
FRONT_DOOR = ("pos_hf", "pos_hf.__main__", "pos_hf._registration")
"""Names what lies behind it."""


@cache
def imports() -> dict[str, set[str]]:
    """Modules that each module names in any import, also inside of functions and for types alone."""
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*parts, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    found[module] |= {inner if inner in files else source} & files.keys()
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The folder of the package that a module lies in; "" for a file beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


def rooms() -> list[str]:
    """The rows of CONTRIBUTING.md's map, from the bottom up."""
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    return re.findall(r"`pos_hf/(\w+)`", table)


def test_the_map_lists_every_room():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(rooms()) == sorted(folders)


def test_no_room_imports_a_higher_one():
    order = ["", *rooms()]
    for module, targets in imports().items():
        if module in FRONT_DOOR:
            continue
        for target in targets:
            assert target != "pos_hf", f"{module} imports the front door"
            upwards = order.index(room_of(target)) > order.index(room_of(module))
            assert not upwards, f"{module} imports {target} above it"


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter(imports()).prepare()


@pytest.mark.parametrize(
    ("place", "foreign"),
    [
        ("balancing", "transformers|accelerate|datasets|PIL"),
        ("run_folder.py", "torch|transformers|accelerate|datasets"),
    ],
)
def test_what_is_light_stays_light(place, foreign):
    path = PACKAGE / place
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        assert not re.search(rf"^\s*(from|import) ({foreign})\b", file.read_text(), re.MULTILINE)
