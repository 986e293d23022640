"""Reads a config file and command-line overrides into three groups of arguments. Nothing is trained here."""

import argparse
import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from pos_hf.data import DataArguments
from pos_hf.errors import InputError, did_you_mean, first_sentence
from pos_hf.training import POSConfig
from pos_hf.values import check_group, json_options


@dataclass
class ModelArguments:
    """Which network is trained, and from which weights."""

    model: str = field(
        default="dinov2_dpt_tiny",
        metadata={"help": "A preset's name, or the folder or Hub id of a segmentation model."},
    )
    backbone_weights: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of pretrained backbone weights for a preset."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that a model folder brings along."}
    )
    model_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Entries of the model's configuration to replace, as JSON."}
    )
    freeze_backbone: bool = field(
        default=False, metadata={"help": "Train only what is not the backbone, which stays as it was given."}
    )
    peft: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'Train LoRA adapters in the backbone, arguments of LoraConfig as JSON: {"r": 8}.'},
    )

    def __post_init__(self) -> None:
        check_group(self, {})
        self.model_options = json_options("model_options", self.model_options)
        if self.peft is not None:
            self.peft = json_options("peft", self.peft)
            if self.freeze_backbone:
                raise InputError("peft freezes the backbone's own weights already: leave out freeze_backbone")


CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1 << 20, 100_000, 50
"""Of a config file; each `*alias` counts as all that it stands for."""
SELECTION_SHARE = 0.1
GROUPS: list[Any] = [ModelArguments, DataArguments, POSConfig]
Arguments = tuple[ModelArguments, DataArguments, POSConfig]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


@cache
def _parser() -> tuple[_Parser, dict[str, Any]]:
    """The parser of every group, which takes longer to make than to use, and its own defaults."""
    parser = _Parser(GROUPS, exit_on_error=False, allow_abbrev=False)
    names = {field.name for group in GROUPS for field in dataclasses.fields(group) if field.init}
    return parser, {name: parser.get_default(name) for name in names}


def config_keys() -> list[str]:
    """Every key of a config, each of which a command line takes as `--key`."""
    return list(_parser()[1])


def parse_config(path: Path | None, overrides: list[str]) -> Arguments:
    """Merge a YAML config with `--key value` overrides, which win.

    The file's `strategy_options` go when the overrides name another strategy, and its `method_options`, but
    for those of `shared_method_options`, when they name another method.

    Args:
        path: the config file; None starts from the defaults.
        overrides: command-line arguments.

    Returns:
        Model, data and training arguments, each checked by its own class.

    Raises:
        InputError: the file does not hold a mapping, a key is unknown (the nearest known one is named), or a
            value does not fit its key.
    """
    values = {} if path is None else read_yaml(path)
    parser, defaults = _parser()
    for key in values:
        if key not in defaults:
            key = str(key)
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(key, defaults)}")
    try:
        parser.set_defaults(**copy.deepcopy(defaults) | values)
        chosen = parser.parse_known_args(overrides)[0]
        if chosen.strategy != parser.get_default("strategy"):
            parser.set_defaults(strategy_options=None)  # the file's belong to the file's strategy
        if chosen.method != parser.get_default("method"):
            options = parser.get_default("method_options")
            parser.set_defaults(method_options=shared_method_options(options))
        groups = parser.parse_args_into_dataclasses(overrides, return_remaining_strings=True)
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        where = " and ".join([str(path)] * (path is not None) + ["the command line"] * bool(overrides))
        problem = error if isinstance(error, InputError) else first_sentence(error)
        raise InputError(f"{where}: {problem}") from error
    model, data, training, remaining = groups
    for key in (argument.removeprefix("--").split("=")[0] for argument in remaining):
        raise InputError(f"unknown argument --{key}{did_you_mean(key, defaults, '--')}")
    if data.selection_share is None:  # labels are scarce: none is set aside that nothing looks at
        data.selection_share = 0.0 if training.eval_strategy == "no" else SELECTION_SHARE
    return model, data, training


def data_options(overrides: list[str]) -> dict[str, Any]:
    """The keys of `DataArguments` that overrides set, for a look at a folder.

    Args:
        overrides: command-line arguments.

    Raises:
        InputError: as `parse_config`.
    """
    _, data, _ = parse_config(None, overrides)
    given = {argument.removeprefix("--").split("=")[0] for argument in overrides}
    return {name: value for name, value in vars(data).items() if name in given}


def shared_method_options(options: dict[str, Any] | str | None) -> dict[str, Any]:
    """Of one method's options those that hold for every other, too: how the labels are learned from.

    Args:
        options: `method_options` of a config.

    Returns:
        `supervised_loss` alone, if it is there.
    """
    return {
        name: option
        for name, option in json_options("method_options", options).items()
        if name == "supervised_loss"
    }


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file.

    Args:
        path: a YAML file that holds one mapping, without tags.

    Returns:
        The mapping.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"there is no config file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB: give a config file")
    try:
        loader = yaml.SafeLoader(path.read_text())
        node = loader.get_single_node()
        is_bounded = node is None or _is_bounded(node)
        values = loader.construct_document(node) if node is not None and is_bounded else None
    # PyYAML lets through the errors of impossible dates and numbers, and of lists in lists without an end
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not is_bounded:
        raise InputError(
            f"{path} nests deeper than {MAX_DEPTH} levels or holds more than {MAX_VALUES:,} values, each "
            "`*alias` counted as all that it stands for: write it out"
        )
    if not isinstance(values, Mapping):
        raise InputError(f"{path} does not hold `key: value` lines")
    return dict(values)


def _is_bounded(root: yaml.Node) -> bool:
    """Whether a document, its aliases written out, is neither endless nor too large to copy and to print."""
    waiting, num_values = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        num_values += 1
        if depth > MAX_DEPTH or num_values > MAX_VALUES:
            return False
        if isinstance(node, yaml.MappingNode):
            waiting += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(part, depth + 1) for part in node.value]
    return True
