"""Types and intervals of values written by hand."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

from pos_hf.errors import InputError, first_sentence
from pos_hf.values import check_group, check_intervals, check_options, check_type


class Pace(Enum):
    SLOW = "slow"
    FAST = "fast"


@pytest.mark.parametrize(
    ("hint", "fitting", "others"),
    [
        (int, [0, -3, 10**30], [True, 1.0, "1", None]),
        (float, [0, 1.5, -2], [True, float("nan"), float("inf"), "1"]),
        (bool, [True, False], [0, 1, "yes", None]),
        (str, ["", "a"], [1, None, ["a"]]),
        (str | None, ["a", None], [0, False]),
        (list[float], [[], [1, 2.5]], [1.5, ["a"], [None], (1.0,)]),
        (list[str] | None, [None, ["a"]], ["a", [1]]),
        (dict[str, Any] | None, [None, {}, {"a": []}], [[], "{}"]),
        (Literal["a", "b"], ["a", "b"], ["c", None, ["a"]]),
        (Pace | str, ["slow", Pace.FAST], ["quick", 1, None]),
        (Any, [None, object()], []),
    ],
)
def test_a_value_fits_its_annotation_or_is_refused(hint, fitting, others):
    for value in fitting:
        check_type("x", value, hint)
    for value in others:
        with pytest.raises(InputError, match="x is"):
            check_type("x", value, hint)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", [0, 0.5, 1], [-1e-9, 1.1]),
        ("(0, 1)", [0.5], [0, 1]),
        ("[0, 1)", [0], [1]),
        ("(0, inf)", [1e-300, 10**400], [0, -1]),
    ],
)
def test_a_number_lies_in_its_interval_or_is_refused(interval, inside, outside):
    check_intervals({"x": None, "y": "text"}, {"x": interval, "y": interval, "absent": interval})
    check_intervals({"x": inside}, {"x": interval})
    for number in outside:
        with pytest.raises(InputError, match=r"x is .* but must lie in"):
            check_intervals({"x": [*inside, number]}, {"x": interval})


def test_fields_and_options_are_checked_and_named():
    @dataclass
    class Group:
        count: int = 1
        share: float = 0.5

    check_group(Group(), {"share": "[0, 1]"})
    with pytest.raises(InputError, match="count is 'two', but must be a whole number"):
        check_group(Group(count="two"), {})

    def method(threshold: Annotated[float, "[0, 1]"], further=None): ...

    check_options("method 'm'", method, {"threshold": 1, "further": object(), "unknown": 3})
    with pytest.raises(InputError, match=r"method 'm': threshold is 3, but must lie in \[0, 1\]"):
        check_options("method 'm'", method, {"threshold": 3})


def test_the_first_sentence_of_a_foreign_error_is_one_line():
    assert first_sentence(OSError("We lost\nthe file. Try again.")) == "We lost the file"
    assert first_sentence(KeyError()) == "KeyError"
    assert len(first_sentence(ValueError("word " * 1000))) <= 300
    worker = "Caught InputError in worker process 0.\nOriginal\npos_hf.errors.InputError: 1.png is\n"
    assert str(InputError(worker)) == "1.png is"
