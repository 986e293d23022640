"""What stops a command: bad input, or a run that cannot go on. And other errors put in one sentence."""

import difflib
import re
import textwrap
from collections.abc import Iterable

NEAR = 0.7
"""Similarity from which a name is a likely slip of another: "lerning_rate" is, "patience" is not."""


class InputError(ValueError):
    """A config, folder, image, mask or checkpoint cannot be used as it is.

    Args:
        message: one sentence: what is wrong, where, and what to do about it.
    """

    def __init__(self, message: str) -> None:
        # a DataLoader's worker hands over the text of a traceback, whose last line is the sentence
        super().__init__(message.rpartition("InputError: ")[2].strip())


class FileInputError(InputError):
    """One file cannot be used as it is; the message is "WHAT FILE PROBLEM".

    Args:
        file: its path, or the name of what stands for it.
        problem: the rest of the sentence.
        what: of which kind the file is, for the message.
        cause: "unreadable", "painted", or nothing that anybody asks about.
    """

    # the name ends like the base class's: see there what workers hand over, which is then all of `file`
    def __init__(self, file: str, problem: str = "", what: str = "", cause: str = "") -> None:
        super().__init__(" ".join(filter(None, (what, file, problem))))
        self.file, self.problem, self.cause = file, problem, cause


class TrainingStopped(RuntimeError):
    """A run that began cannot go on; its last checkpoint is intact. The message is one sentence."""


def first_sentence(error: BaseException) -> str:
    """What another library says of an error, on one line: its first sentence, at most 300 characters.

    Args:
        error: of any type; one without a text is named by its type.
    """
    text = re.split(r"[.!?] (?=[A-Z])|\n\n", str(error).strip())[0]
    return textwrap.shorten(text, 300) or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like an unknown one.

    Args:
        name: what was written.
        known: at least one name.

    Returns:
        One of `known`.
    """
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", listed: str = "docs/settings.md") -> str:
    """The end of a sentence about an unknown name: a known one that is near, or where they are listed.

    Args:
        name: what was written.
        known: what could have been.
        prefix: put before the known name.
        listed: where all of them are.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=NEAR)
    return f", did you mean '{prefix}{near[0]}'?" if near else f": {listed} lists the known ones"
