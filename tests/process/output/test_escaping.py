"""Escaping untrusted text."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.process.output.escaping import (
    escape_json,
    escape_line,
    escape_text,
)

# Old terminals obey C1, new ones turn and hide text by the others.
STEERING = [
    *("\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028"),
    *("\u202e", "\u2066", "\u200b", "\u200f", "\u061c", "\ufeff"),
]


@pytest.mark.parametrize("character", STEERING, ids=ascii)
def test_escape_line_shows_control_characters(character: str) -> None:
    shown = ascii(character)[1:-1].replace("\\r", "\\x0d")
    assert escape_line(f"a{character}b") == f"a{shown}b"
    assert escape_text(f"a{character}b\nc") == f"a{shown}b\nc"
    text = json.dumps({"a": character}, ensure_ascii=False, indent=1)
    assert character not in escape_json(text)
    assert json.loads(escape_json(text)) == {"a": character}


def test_escape_line_yields_one_line() -> None:
    assert escape_line("a\nb\tc") == "a\\x0ab\tc"


@given(st.text())
def test_escape_line_leaves_no_control_character(text: str) -> None:
    """Text without control characters is unchanged."""
    line = escape_line(text)
    assert not [c for c in line if unicodedata.category(c) == "Cc" and c != "\t"]
    assert escape_line(line) == line
    assert escape_text(text).count("\n") == text.count("\n")
    if text.isprintable():
        assert line == text


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_escape_json_is_equivalent(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert json.loads(escape_json(text)) == value
