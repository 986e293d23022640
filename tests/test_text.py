"""Names from the data as text: shown as they are, never taken for markup, a formula or another line."""

import csv
from io import StringIO

import pytest

from pos_hf.text import csv_cell, markdown, markdown_code, one_line


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("traffic light", "traffic light"),
        ("Fußgänger 行人", "Fußgänger 行人"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        (b"caf\xe9".decode(errors="surrogateescape"), r"caf\udce9"),
        ("a\u2028b\x00", r"a\u2028b\x00"),
        (None, "None"),
    ],
)
def test_a_name_is_one_line_that_can_be_stored(name, shown):
    assert one_line(name) == shown
    assert one_line(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("A & B", "A & B"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("&lt;b", "&amp;lt;b"),
        ("a | b\n| c", r"a \| b\\n\| c"),
        ("[x](http://y) `z` *w*", r"\[x\](http://y) \`z\` \*w\*"),
    ],
)
def test_markdown_shows_a_name_as_it_is(name, shown):
    assert markdown(name) == shown


def test_code_in_a_table_ends_where_it_should():
    assert markdown_code("a`b|c\nd") == r"a'b\|c\nd"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "a", "\t=1", "\r\n=1"])
def test_no_cell_begins_as_a_formula(name):
    file = StringIO()
    csv.writer(file).writerow([csv_cell(name)])
    ((cell,),) = csv.reader(StringIO(file.getvalue()))
    assert cell[0] not in "=+-@\t\r\n" and name.strip() in cell
