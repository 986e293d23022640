"""Names that come with the data (classes, arms, files) as text that people read: one line, no markup, no
formula. HTML pages escape by themselves."""

import re
import unicodedata

UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories: control characters, halves of surrogates (bytes that are no UTF-8), line breaks."""


def one_line(text: object) -> str:
    r"""Text on one line that any encoding of Unicode can store: what cannot be printed becomes an escape.

    Args:
        text: a name, or anything that stands for one; a byte 255 of a file's name is shown as \udcff.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in UNPRINTABLE
        else character
        for character in shown
    )


def markdown(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, and no end of a table's cell."""
    escaped = re.sub(r"[\\`*\[\]|]", r"\\\g<0>", one_line(text))
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", escaped)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def markdown_code(text: object) -> str:
    """Text for a cell of a Markdown table between backticks, where nothing but these two ends it."""
    return one_line(text).replace("`", "'").replace("|", r"\|")


def csv_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    shown = one_line(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
