"""Which files of a run go to the Hub: a list of what is allowed. Sending them is in `push`, the card's
text in `model_card`."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import (
    CONFIG_NAME,
    IMAGE_PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from pos_hf.errors import InputError, first_sentence
from pos_hf.files import damaged, read_json
from pos_hf.model_folders import check_model_folder, code_files, require_inside, weight_files
from pos_hf.run_folder import ADAPTER_FOLDER, CARD_FILE, SCORES_FILE, STUDENT_FOLDER

Files = dict[str, Path | bytes]
"""Path in the repository -> the local file, or the content itself where it differs from the local file."""


def run_files(folder: Path, card: str, evaluation_results: str | None = None) -> Files:
    """Everything of a run that the Hub gets.

    Args:
        folder: of the run; its root is the exported model, `student/` the student where there is a teacher.
        card: text of README.md; the example pictures that it shows go along.
        evaluation_results: YAML for `.eval_results/`, None to leave it out.

    Returns:
        Model, processor and remote code of both, scores with their protocol, card and pictures.

    Raises:
        InputError: the folder holds no exported model, or a file is damaged or a link that leads out of it.
    """
    files: Files = {CARD_FILE: card.encode(), **model_files(folder)}
    if (folder / STUDENT_FOLDER).is_dir():
        files |= model_files(folder / STUDENT_FOLDER, f"{STUDENT_FOLDER}/")
        check_model_folder(folder, STUDENT_FOLDER)
    adapter = (f"{ADAPTER_FOLDER}/{name}" for name in ("adapter_config.json", "adapter_model.safetensors"))
    files |= {name: folder / name for name in adapter if (folder / name).is_file()}
    if (folder / SCORES_FILE).is_file():
        files[SCORES_FILE] = folder / SCORES_FILE
    if evaluation_results is not None:
        files[".eval_results/pos_hf.yaml"] = evaluation_results.encode()
    check_model_folder(folder)
    files |= pictures(folder, card)
    for content in files.values():
        if isinstance(content, Path):
            require_inside(folder, content)
    return files


def model_files(folder: Path, prefix: str = "") -> Files:
    """Configuration, weights, image processor and remote code of a saved model.

    Args:
        folder: where `save_pretrained` wrote it.
        prefix: its place in the repository, "" or ending in a slash.

    Raises:
        InputError: the folder holds no model, or it is damaged or names a file outside.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise InputError(f"'{folder}' holds no {CONFIG_NAME}: give the folder of a finished training run.")
    require_inside(folder, folder / CONFIG_NAME)
    read_json(folder / CONFIG_NAME)
    names = [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, IMAGE_PROCESSOR_NAME]
    names += [*weight_files(folder), *_code(folder)]
    files: Files = {prefix + name: folder / name for name in names if (folder / name).is_file()}
    config = (folder / CONFIG_NAME).read_text(encoding="utf-8")
    return files | {prefix + CONFIG_NAME: without_origin(config).encode()}


def without_origin(config: str) -> str:
    """The text of a config.json without the folders of this machine that its parts were loaded from."""

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in pairs if key != "_name_or_path"}

    return json.dumps(json.loads(config, object_pairs_hook=keep), indent=2) + "\n"


def pictures(folder: Path, card: str) -> Files:
    """The files below `examples/` that a card shows.

    Args:
        folder: of the run.
        card: Markdown text.
    """
    shown = (unquote(target) for target in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", card))
    examples = (folder / "examples").resolve()
    return {
        target: folder / target
        for target in shown
        if (folder / target).resolve().is_relative_to(examples) and (folder / target).is_file()
    }


def _code(folder: Path) -> set[str]:
    """The modules that the Auto classes load from the folder, and what those import from beside them."""
    modules = {module for module in code_files(folder) if (folder / module).is_file()}
    found = set(modules)
    for module in modules:
        try:
            found |= {Path(path).name for path in get_relative_import_files(folder / module)}
        except (OSError, ValueError) as error:
            raise damaged(folder / module, first_sentence(error)) from error
    return found
