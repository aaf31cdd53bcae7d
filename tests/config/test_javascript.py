"""Test which JavaScript is a plain literal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.config.javascript import JavaScriptError, read_literal

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=3), st.sampled_from([None, 2]))
def test_json_is_read_as_json(value: Any, indent: int | None) -> None:
    assert read_literal(json.dumps(value, indent=indent)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("module.exports = {a: 1,}", {"a": 1}),
        ("'use strict';\nmodule . exports = ['x', \"y\", `z`,];\n", ["x", "y", "z"]),
        (
            "export default {\n// c\n$k_1: /* d */ -1.5e1, 2: 0xff}",
            {"$k_1": -15.0, "2": 255},
        ),
        (r"['\'\n\x41B\u{43}\z']", ["'\nABCz"]),
        ("[undefined, null, true]", [None, None, True]),
        ("['a\\\nb']", ["ab"]),
    ],
)
def test_literal_is_read(text: str, value: object) -> None:
    assert read_literal(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^line 1: expected module\.exports"),
        ("module.exports = {\na: f()}", r"^line 2: not a plain literal; .*'f\(\)\}'"),
        ("[`a${b}`]", r"^line 1: not a plain literal"),
        ("['a' + 'b']", r"^line 1: expected ',' or '\]'; only plain literals"),
        ("[1", r"^line 1: expected ',' or '\]'"),
        ("['a", r"^line 1: the string is not closed"),
        ("{a}", r"^line 1: expected ':'"),
        ("{[a]: 1}", r"^line 1: expected a key"),
        ("{", r"^line 1: expected '\}', got 'the end'"),
        ("[] []", r"^line 1: expected the end of the file"),
        ("[" * 1000, r"^line 1: nested too deeply"),
    ],
)
def test_other_text_raises_with_line(text: str, message: str) -> None:
    with pytest.raises(JavaScriptError, match=message):
        read_literal(text)
