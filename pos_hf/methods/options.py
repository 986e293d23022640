"""Objects by name and options, as YAML gives them; an unknown name is answered with the nearest known."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pos_hf.errors import InputError, nearest
from pos_hf.values import check_options

INTERVALS = {
    "threshold": "[0, 1]",
    "start": "[0, 1]",
    "decay": "[0, 1)",
    "ramp_up": "[0, 1]",
    "num_sigmas": "(0, inf)",
    "min_kept": "[1, inf)",
}
T = TypeVar("T")
Spec = str | Mapping[str, Any]
"""A name, or `{"name": ..., option: value, ...}`."""


def build(kind: str, table: Mapping[str, Callable[..., T]], spec: Spec) -> T:
    """Call the entry of `table` that `spec` names with the options it gives.

    Args:
        kind: What the table holds, for the message ("method", "threshold", ...).
        table: Callables by name.
        spec: Name, or mapping of `name` and options.

    Raises:
        InputError: Unknown name or option.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(options.pop("name", None))
    if name not in table:
        raise InputError(f"Unknown {kind} '{name}'{_suggestion(name, table)}; known: {', '.join(table)}.")
    known = inspect.signature(table[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f"Unknown option '{option}' of {kind} '{name}'{_suggestion(option, known)}")
    check_options(f"{kind} '{name}'", table[name], options, INTERVALS)
    return table[name](**options)


def one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    """`value`, or an InputError when it is none of the option's choices."""
    if value not in choices:
        raise InputError(f"Option {option} must be one of {', '.join(choices)}, not '{value}'.")
    return value


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = list(known)
    return f", did you mean '{nearest(name, known)}'?" if known else ""
