"""The recipes that come with the package, by name: `configs/` of the repository, which a wheel carries."""

from pathlib import Path

from pos_hf.errors import InputError, did_you_mean

PACKAGED = Path(__file__).parents[1] / "recipes"
STUDIES = "studies"


def recipes() -> dict[str, Path]:
    """The config file of each recipe by its name, such as `pascal/unimatch_v2/dinov2_small`."""
    folder = PACKAGED if PACKAGED.is_dir() else PACKAGED.parents[1] / "configs"
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.yaml")}
    return {name: file for name, file in sorted(files.items()) if not name.startswith(STUDIES)}


def recipe_file(name: str) -> Path:
    """The config file of one recipe.

    Raises:
        InputError: there is none of this name.
    """
    known = recipes()
    if name not in known:
        raise InputError(f"there is no recipe {name!r}{did_you_mean(name, known, listed='pos-hf recipes')}")
    return known[name]
