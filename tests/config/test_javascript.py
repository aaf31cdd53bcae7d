"""Test which JavaScript is a plain literal."""

from __future__ import annotations

import json
from contextlib import suppress
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


DECLARED = """
"use strict";
const path = require("node:path"), { join } = require('path');
import os from "os";
let base = { env: { A: "1", B: process.env.B }, merge_logs: true };
var name = "api"
const isLarge = process.env.SIZE === "large";
module.exports = {
  name, ...base, "count": isLarge ? 4 : 1,
  script: path.join(__dirname, "src", `${name}-${base.env.A}.js`),
  log: join("logs", name + ".log"), first: [...["x"], base["env"].A][0],
  port: process.env.PORT || 8000 + 1, none: process.env.NO ?? "no",
  [name + "2"]: !isLarge && base?.env, ...(isLarge && { more: 1 }),
};
"""


def test_constants_and_operators_are_evaluated() -> None:
    found = read_literal(DECLARED, {"B": "b", "SIZE": "large"})
    assert found == {
        "name": "api",
        "env": {"A": "1", "B": "b"},
        "merge_logs": True,
        "count": 4,
        "script": "src/api-1.js",
        "log": "logs/api.log",
        "first": "x",
        "port": 8001,
        "none": "no",
        "api2": False,
        "more": 1,
    }
    assert read_literal(DECLARED)["api2"] == {"A": "1", "B": None}
    assert read_literal(DECLARED, {"PORT": "1"})["port"] == "1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0 === 1", True),
        ("1 === true", False),
        ("null == 5", False),
        ("path.resolve('a', '/abs', 'b.js')", "/abs/b.js"),
        ("path.join('a', '/b')", "a/b"),
        ("process.env.HOST?.length ?? 3", 3),
        ("process.env.N && process.env.N.length", None),
        ("process.env.B ? process.env.B.trim() : 'd'", "d"),
        ("'x' || f(y)['z'].a", "x"),
        (r"'\u{110000}'", "\ufffd"),
    ],
)
def test_expression_is_evaluated(text: str, value: object) -> None:
    found = read_literal(f"const path = require('path')\nmodule.exports = [{text}]")
    assert found == [value]


def test_small_text_is_no_huge_value() -> None:
    """A constant that is used twice in the next one, and so on."""
    lines = ["const a0 = 'x'"]
    lines += [f"const a{n} = a{n - 1} + a{n - 1}" for n in range(1, 40)]
    lines += ["module.exports = [a39]"]
    with pytest.raises(JavaScriptError, match="too large"):
        read_literal("\n".join(lines))


@given(st.text(alphabet="abc{}[]()'`$\\,:?.!+|&=0 \n", max_size=30))
def test_any_text_is_read_or_raises(text: str) -> None:
    with suppress(JavaScriptError):
        read_literal("const a = {b: ['c']}\nmodule.exports = " + text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^line 1: expected module\.exports"),
        ("module.exports = {\na: f()}", r"^line 2: not a plain literal; .*'f\(\)\}'"),
        ("[`a${b}`]", r"^line 1: not a plain literal"),
        ("[`a${1`]", r"^line 1: expected '\}'"),
        ("[`a", r"^line 1: the string is not closed"),
        ("['a' 'b']", r"^line 1: expected ',' or '\]'"),
        ("['a' * 2]", r"^line 1: expected ',' or '\]'"),
        ("[new Date()]", r"^line 1: not a plain literal"),
        ("[...5]", r"^line 1: cannot be spread here"),
        ("{f() {}}", r"^line 1: not a plain literal"),
        (
            "const a = 5;\nmodule.exports = [a.b.c]",
            r"^line 2: what has 'b' is not an object",
        ),
        ("const os = require('os')\nmodule.exports = [os.cpus()]", "^line 2: not a pl"),
        ("const fs = require('fs')\nmodule.exports = fs", "^line 2: not a plain"),
        ("module.exports = require('./other')", "other is not a plain literal"),
        ("[1 ?", "^line 1: not a plain literal"),
        ("['2' == 2]", "^line 1: '==' of values of different types"),
        ("[1e999]", "^line 1: a number that is too large"),
        ("[" + "1" * 5000 + "]", "^line 1: a number that is too large"),
        ("[1 ? 2]", "^line 1: expected ':'"),
        ("const a = " + "('x' + " * 60 + "1", "^line 1: nested too deeply"),
        ("const a", "^line 1: expected '='"),
        ("[1", r"^line 1: expected ',' or '\]'"),
        ("['a", r"^line 1: the string is not closed"),
        ("{a}", r"^line 1: expected ':'"),
        ("{[a]: 1}", r"^line 1: not a plain literal"),
        ("{+: 1}", r"^line 1: expected a key"),
        ("{", r"^line 1: expected '\}', got 'the end'"),
        ("[] {}", r"^line 1: expected the end of the file"),
        ("[" * 1000, r"^line 1: nested too deeply"),
    ],
)
def test_other_text_raises_with_line(text: str, message: str) -> None:
    with pytest.raises(JavaScriptError, match=message):
        read_literal(text)
