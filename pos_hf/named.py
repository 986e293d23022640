"""Methods, strategies, losses and rules by name and options, as YAML gives them: the one way to make them."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pos_hf.errors import InputError, nearest
from pos_hf.values import check_options

T = TypeVar("T")
Spec = str | Mapping[str, Any]
"""A name, or `{"name": ..., option: value, ...}`."""
Share = Annotated[float, "[0, 1]"]
Decay = Annotated[float, "[0, 1)"]


def build(kind: str, table: Mapping[str, Callable[..., T]], spec: Spec) -> T:
    """Call the entry of `table` that `spec` names with the options it gives.

    Args:
        kind: What the table holds, for the message ("method", "strategy", ...).
        table: Callables by name. Their annotations are checked; `Annotated[float, "[0, 1)"]` bounds a number.
        spec: Name, or mapping of `name` and options.

    Raises:
        InputError: Unknown name or option (the message names the nearest known one), or a value that does
            not fit.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(options.pop("name", None))
    if name not in table:
        known_names = ", ".join(table)
        raise InputError(f"unknown {kind} {name!r}{_suggestion(name, table)} Known are {known_names}")
    known = inspect.signature(table[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f"unknown option {option!r} of {kind} {name!r}{_suggestion(option, known)}")
    check_options(f"{kind} {name!r}", table[name], options)
    return table[name](**options)


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = list(known)
    return f", did you mean {nearest(name, known)!r}?" if known else ", which takes none"
