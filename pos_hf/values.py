"""Whether a value written by hand has its annotated type and lies in its interval. Knows no meanings."""

import dataclasses
import inspect
import json
import math
import os
import reprlib
import types
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pos_hf.errors import InputError, nearest

Intervals = Mapping[str, str]
"""What numbers may be, by name, in the notation of mathematics: "[0, 1)" holds 0 and not 1."""

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


IGNORE_INDEX = 255
"""In masks and labels: a pixel that has no class and counts nowhere."""

_type_hints = cache(get_type_hints)  # evaluating the annotations of 150 fields takes milliseconds


def check_group(group: Any, intervals: Intervals) -> None:
    """Check every field of a dataclass instance.

    Args:
        group: the instance, as it was constructed.
        intervals: of its numbers, and of the numbers in its lists.

    Raises:
        InputError: names the first field whose value does not fit.
    """
    hints = _type_hints(group.__class__)
    fields = [field for field in dataclasses.fields(group) if field.init]
    values = {field.name: getattr(group, field.name) for field in fields}
    for field in fields:
        if values[field.name] is not field.metadata.get("const", values):  # what a bare `--name` stands for
            check_type(field.name, values[field.name], hints[field.name])
    check_intervals(values, intervals)


def check_options(what: str, call: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check keyword arguments before a call; arguments that the callable does not know are passed over.

    Args:
        what: the callable makes, for the message.
        call: an annotated function or class; `Annotated[float, "[0, 1]"]` gives a number's interval.
        options: its arguments by name.

    Raises:
        InputError: names the first option whose value does not fit.
    """
    parameters = inspect.signature(call, eval_str=True).parameters
    try:
        for name in options.keys() & parameters.keys():
            hint, interval = parameters[name].annotation, None
            if get_origin(hint) is Annotated:
                hint, interval = get_args(hint)
            check_type(name, options[name], hint)
            check_intervals(options, {} if interval is None else {name: interval})
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def check_type(name: str, value: Any, hint: Any) -> None:
    """Compare one value with an annotation.

    Raises:
        InputError: the value is of another type, or none of the choices.
    """
    if _fits(value, hint):
        return
    choices = [choice for part in _alternatives(hint) for choice in _choices(part)]
    if choices and isinstance(value, str):
        raise InputError(
            f"{name} is {reprlib.repr(value)}, but must be one of {', '.join(choices)}: did you mean "
            f"{nearest(value, choices)!r}?"
        )
    words = dict.fromkeys(", ".join(_choices(part)) or _words(part) for part in _alternatives(hint))
    raise InputError(f"{name} is {reprlib.repr(value)}, but must be {' or '.join(words)}")


def check_intervals(values: Mapping[str, Any], intervals: Intervals) -> None:
    """Compare numbers, and the numbers in lists, with the intervals they may lie in.

    Args:
        values: by name; None and what is no number are passed over.
        intervals: by name; names without a value are passed over.

    Raises:
        InputError: names the first number that lies outside.
    """
    for name, interval in intervals.items():
        given = values.get(name)
        for number in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(number, (int, float)) and not _lies_in(number, interval):
                raise InputError(f"{name} is {reprlib.repr(given)}, but must lie in {interval}")


def json_options(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:
    """Options as a config file (a mapping) or a command line (JSON) gives them.

    Args:
        name: of the key, for the message.
        value: the mapping, its JSON, or None for no options.

    Returns:
        The mapping.

    Raises:
        InputError: the value is something else.
    """
    try:
        options = json.loads(value) if isinstance(value, str) else value or {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} {reprlib.repr(value)} is not valid JSON: {error}") from error
    if not isinstance(options, dict):
        given = reprlib.repr(value)
        raise InputError(f'{name} must be a mapping such as {{"threshold": 0.9}}, not {given}')
    return options


def _lies_in(number: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    return above and (number <= high if interval[-1] == "]" else number < high)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    if hint in (Any, inspect.Parameter.empty):
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        enumerations = [part for part in parts if isinstance(part, type) and issubclass(part, Enum)]
        if enumerations and isinstance(value, str):  # transformers writes `Choice | str`
            return any(_fits(value, part) for part in enumerations)
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin in (list, tuple):
        return isinstance(value, origin) and all(_fits(item, parts[0]) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint is str:
        return isinstance(value, (str, os.PathLike))
    if hint is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, hint) or value in _choices(hint)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [str(member.value) for member in hint]
    return []


def _words(hint: Any) -> str:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (list, tuple) and parts:
        return f"a list, each item {_words(parts[0])}"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))
