"""Values as short text: no code of the application's runs, and nothing is long."""

from __future__ import annotations

import time
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.diagnostics.stacks.values import short, short_locals

LONGEST = 120


class Trap(type):
    """A class whose every question is answered by an error."""

    def __eq__(cls, other: object) -> NoReturn:
        raise AssertionError("asked the metaclass")

    def __hash__(cls) -> NoReturn:
        raise AssertionError("asked the metaclass")

    def __getattribute__(cls, name: str) -> NoReturn:
        raise AssertionError(f"asked the metaclass for {name}")


class Hostile(metaclass=Trap):
    """An object that nobody may touch."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise AssertionError(f"asked for {name}")

    def __repr__(self) -> NoReturn:
        raise AssertionError("asked for its repr")

    def __len__(self) -> NoReturn:
        raise AssertionError("asked for its length")


class Loud(list[int]):
    """A list in all but this."""

    def __repr__(self) -> NoReturn:
        raise AssertionError("asked for its repr")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (12, "12"),
        (1.5, "1.5"),
        ("it's", '"it\'s"'),
        (b"\0", "b'\\x00'"),
        ((), "()"),
        ((1,), "(1,)"),
        ([1, [2, [3]]], "[1, [2, <list of 1>]]"),
        ({"a": {1}}, "{'a': {1}}"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ... 9 in total]"),
        (int, "<class int>"),
        (len, "<function len>"),
    ],
)
def test_short_shows_builtin_values(value: object, text: str) -> None:
    assert short(value) == text


def test_short_names_objects_without_calling_them() -> None:
    """Neither itself nor its class, nor inside of a container."""
    hostile = Hostile()
    assert short(hostile).startswith(f"<{__name__}.Hostile at 0x")
    assert "Hostile at 0x" in short([hostile, {"key": hostile}])
    assert short(Hostile) == f"<class {__name__}.Hostile>"
    assert "Loud at 0x" in short(Loud([1]))


def test_short_of_huge_value_is_fast() -> None:
    """The digits of such an int alone would take minutes."""
    huge = 1 << 40_000_000
    began = time.perf_counter()
    assert short(huge) == "<int of 40000001 bits>"
    assert "10000000 in total" in short("x" * 10_000_000)
    assert time.perf_counter() - began < 1


def test_short_locals_hides_secrets() -> None:
    """By the name of the variable, and by that of a key."""
    found = short_locals(
        {"password": "hunter2", "headers": {"Authorization": "hunter2"}}, 10
    )
    assert "hunter2" not in str(found)
    assert found["password"] == "<hidden>"


def test_short_locals_omits_modules_and_counts_the_rest() -> None:
    found = short_locals({"time": time, "a": 1, "b": 2}, 2)
    assert found == {"a": "1", "...": "1 more"}


anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(anything)
def test_short_is_at_most_120_characters(value: object) -> None:
    """And everything is text that JSON can carry."""
    text = short(value)
    assert len(text) <= LONGEST
    assert text.encode()
