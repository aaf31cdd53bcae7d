"""Test that written TOML reads as what was written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.config.toml_writer import Section, table_name, value_text

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_TEXT, _TEXT, _VALUES, _TEXT)
def test_section_reads_as_what_was_written(
    table: str, key: str, value: Any, note: str
) -> None:
    section = Section(table_name("services", table))
    section.note(note)
    section.set(key, value, note)
    assert tomllib.loads(str(section)) == {"services": {table: {key: value}}}


def test_value_that_is_no_toml_raises() -> None:
    with pytest.raises(TypeError, match=r"^no TOML value: None$"):
        value_text(None)
