"""The one exception for bad input, and the known name that an unknown one was meant to be."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A config, folder, image, mask or checkpoint cannot be used as it is.

    The message is one sentence: what is wrong, where, and what to do about it.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like an unknown one.

    Args:
        name: what was written.
        known: at least one name.

    Returns:
        One of `known`.
    """
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]
