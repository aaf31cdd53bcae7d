"""Objects to lines and back, with the standard library's json as the oracle."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kits.wire_strategies import json_values, nested, objects
from trio_supervisor.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
)
from trio_supervisor.wire.json_line import decode_object, encode_object
from trio_supervisor.wire.json_tree import is_deeper

DEPTH = 64


@given(objects)
def test_object_round_trip(tree: dict[str, Any]) -> None:
    """As one line, which other JSON libraries read alike."""
    line = encode_object(tree)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert decode_object(line[:-1], DEPTH) == tree
    assert json.loads(line) == tree


@given(json_values)
def test_non_object_is_refused(value: object) -> None:
    """Every other JSON type is refused."""
    line = json.dumps(value).encode()
    if isinstance(value, dict):
        assert decode_object(line, DEPTH) == value
    else:
        with pytest.raises(RemoteProtocolError, match="not a JSON object"):
            decode_object(line, DEPTH)


HOSTILE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\r", id="a blank line of another system"),
    pytest.param(b"{", id="half an object"),
    pytest.param(b"{}{}", id="two objects"),
    pytest.param(b"{'a': 1}", id="Python"),
    pytest.param(b'{"a": 1,}', id="trailing comma"),
    pytest.param(b'{"a": NaN}', id="NaN"),
    pytest.param(b'{"a": -Infinity}', id="infinity"),
    pytest.param(b'{"a": 1e400}', id="a float past all floats"),
    pytest.param(b'{"a": ' + b"9" * 400 + b"}", id="an int past all floats"),
    pytest.param(b'{"a": "\\ud800"}', id="an escaped lone surrogate"),
    pytest.param(b'{"a": "\xed\xa0\x80"}', id="an encoded lone surrogate"),
    pytest.param(b'{"a": "\xff"}', id="no UTF-8"),
    pytest.param(b'\xef\xbb\xbf{"a": 1}', id="byte order mark"),
    pytest.param(b'{"a": "\x00"}', id="a raw control character"),
    pytest.param(b"[" * 100_000, id="100,000 arrays"),
    pytest.param(b'{"a":' * 100_000, id="100,000 objects"),
    pytest.param(b"[" * 1_000 + b"]" * 1_000, id="1,000 arrays, closed"),
]


@pytest.mark.parametrize("line", HOSTILE)
def test_invalid_line_is_refused(line: bytes) -> None:
    """Only RemoteError is raised; its message quotes the start of the line."""
    with pytest.raises(
        RemoteProtocolError, match=r"^not (JSON|a JSON object)"
    ) as caught:
        decode_object(line, DEPTH)
    assert ascii(line[:40])[:-1] in str(caught.value)
    assert len(str(caught.value)) < 1_000


@given(st.binary(max_size=40))
@example(b'{"":{}}')
@example(b'{"a": 1, "a": 2}')
def test_any_line_is_object_or_remote_error(line: bytes) -> None:
    """The standard library reads accepted lines alike."""
    try:
        tree = decode_object(line, DEPTH)
    except RemoteProtocolError:
        return
    assert tree == json.loads(line)


def test_duplicate_keys_last_wins() -> None:
    """As in the JSON libraries of Python, Ruby and JavaScript."""
    assert decode_object(b'{"id":2,"id":4}', DEPTH) == {"id": 4}


def test_number_types_are_kept() -> None:
    """2.0 is not a valid id, and True is not 1."""
    tree = decode_object(b'{"a":2,"b":2.0,"c":2e0,"d":true,"e":-0}', DEPTH)
    assert list(map(type, tree.values())) == [int, float, float, bool, int]


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda n: {"a": nested(n - 1)}, id="arrays"),
        pytest.param(lambda n: {"a": 1, "b": [[1], nested(n - 2)]}, id="a side branch"),
        pytest.param(lambda n: {"": [{"a": [nested(n - 4)]}]}, id="arrays and objects"),
    ],
)
@pytest.mark.parametrize("depth", [6, 64])
def test_depth_limit_is_exact(wrap: Any, depth: int) -> None:
    """The outermost object is level 1."""
    at_the_limit, deeper = wrap(depth), wrap(depth + 1)
    assert decode_object(json.dumps(at_the_limit).encode(), depth) == at_the_limit
    with pytest.raises(LimitExceededError, match=f"deeper than {depth} levels"):
        decode_object(json.dumps(deeper).encode(), depth)


def depth_of(value: object) -> int:
    """Levels of arrays and objects in *value*."""
    match value:
        case dict():
            return 1 + max(map(depth_of, value.values()), default=0)
        case list():
            return 1 + max(map(depth_of, value), default=0)
        case _:
            return 0


marks = st.text(st.sampled_from('[]{}"\\a'), max_size=6)
marked = st.recursive(
    marks,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(marks, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(marks, marked, max_size=4), st.integers(1, 8))
def test_depth_ignores_string_contents(tree: dict[str, Any], limit: int) -> None:
    """Brackets, quotes and backslashes in keys and values do not count."""
    line = encode_object(tree)
    assert is_deeper(line, limit) is (depth_of(tree) > limit)
    assert is_deeper(json.dumps(tree, indent=1).encode(), limit) is (
        depth_of(tree) > limit
    )


def test_depth_of_flat_object_is_one() -> None:
    """The smallest limit that accepts an object."""
    assert decode_object(b'{"a":"[[[{{{"}', 1) == {"a": "[[[{{{"}
    with pytest.raises(LimitExceededError):
        decode_object(b'{"a":[]}', 1)


def test_depth_ignores_adjacent_brackets() -> None:
    """Adjacent arrays do not add levels."""
    tree = {"a": [[] for _ in range(1_000)], "b": "[{" * 1_000}
    assert decode_object(encode_object(tree)[:-1], 3) == tree


def test_non_finite_float_becomes_null() -> None:
    """As in JSON.stringify."""
    values = [math.inf, -math.inf, math.nan]
    assert encode_object({"a": values}) == b'{"a":[null,null,null]}\n'


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"file": "caf\udce9.py"}, b'{"file":"caf?.py"}\n'),
        ({"caf\udce9": 1}, b'{"caf?":1}\n'),
        ({"a": {"b": ["\ud800", ("\udfff", None)]}}, b'{"a":{"b":["?",["?",null]]}}\n'),
        ({"a": "é\udce9"}, '{"a":"é?"}\n'.encode()),
    ],
)
def test_lone_surrogate_becomes_question_mark(
    tree: dict[str, object], line: bytes
) -> None:
    """File names that are not UTF-8 contain them; the connection stays open."""
    assert encode_object(tree) == line


def _cycle() -> list[object]:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize("other", ["a", "\ud800"], ids=["plain", "with a surrogate"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"bytes", id="bytes"),
        pytest.param({1, 2}, id="a set"),
        pytest.param({1: 2}, id="a key that is no string"),
        pytest.param(object(), id="an object"),
        pytest.param(2**64, id="too large an int"),
        pytest.param(10**400, id="far too large an int"),
        pytest.param(1j, id="a complex number"),
        pytest.param(_cycle(), id="a cycle"),
        pytest.param(nested(10_000), id="10,000 arrays"),
    ],
)
def test_unsendable_value_raises(value: object, other: str) -> None:
    """Only this error, for any other contents of the object."""
    with pytest.raises(LocalProtocolError, match="cannot be encoded as JSON"):
        encode_object({"other": other, "value": value})
