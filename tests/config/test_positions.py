"""Test that every key of a TOML document has the line where it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.config.positions import KeyPath, lines_of

DOCUMENT = '''\
# a comment with "quotes" and [brackets]
title = "x # no comment"
a.b . "c d" = 1

[services.web]
command = [
    "sh",  # ]
    '-c', """
several
lines""",
]
environment = { PORT = "8000", 'Q"' = [1, { z = 2 }] }

[[monitors]]
n = 1
[[monitors]]
n = 2
[monitors.deep]
x = 1979-05-27T07:32:00Z

["quoted \\u0041\\n"]
y = """a\\"""b"""
z = 1
'''


def test_lines_of_document_are_where_the_keys_stand() -> None:
    assert lines_of(DOCUMENT) == {
        ("title",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("a", "b", "c d"): 3,
        ("services",): 5,
        ("services", "web"): 5,
        ("services", "web", "command"): 6,
        ("services", "web", "command", 0): 7,
        ("services", "web", "command", 1): 8,
        ("services", "web", "command", 2): 8,
        ("services", "web", "environment"): 12,
        ("services", "web", "environment", "PORT"): 12,
        ("services", "web", "environment", 'Q"'): 12,
        ("services", "web", "environment", 'Q"', 0): 12,
        ("services", "web", "environment", 'Q"', 1): 12,
        ("services", "web", "environment", 'Q"', 1, "z"): 12,
        ("monitors",): 14,
        ("monitors", 0): 14,
        ("monitors", 0, "n"): 15,
        ("monitors", 1): 16,
        ("monitors", 1, "n"): 17,
        ("monitors", 1, "deep"): 18,
        ("monitors", 1, "deep", "x"): 19,
        ("quoted A\n",): 21,
        ("quoted A\n", "y"): 22,
        ("quoted A\n", "z"): 23,
    }


def test_lines_of_document_with_carriage_returns_are_the_same() -> None:
    assert lines_of(DOCUMENT.replace("\n", "\r\n")) == lines_of(DOCUMENT)


_SCALARS = st.sampled_from(
    ['"a\\"]"', "'b}'", "1_000", "true", "inf", "1979-05-27", '"""\nq"""', "'''\n'r'''"]
)
_KEYS = st.sampled_from(["a", "b-1", '"c.d"', "'e f'"])


def _inline(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(values, max_size=3).map(
        lambda v: "[ # x\n" + " ,\n".join(v) + "]"
    )
    tables = st.dictionaries(_KEYS, values, max_size=3).map(
        lambda v: "{" + ", ".join(f"{key} = {each}" for key, each in v.items()) + "}"
    )
    return arrays | tables


_VALUES = st.recursive(_SCALARS, _inline, max_leaves=6)


@given(st.lists(st.tuples(_KEYS, _KEYS, _VALUES), max_size=5), st.booleans())
def test_every_key_of_any_document_has_a_line(
    pairs: list[tuple[str, str, str]], is_array: bool
) -> None:
    marks = ("[[", "]]") if is_array else ("[", "]")
    text = "".join(
        f"{marks[0]} {table} . {number} {marks[1]} # t\n{key} = {value}\n"
        for number, (table, key, value) in enumerate(pairs)
    )
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(lines_of(text)) == set(_paths(document, ()))


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if path:
        yield path
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, item in pairs:
        yield from _paths(item, (*path, key))
