"""The standard library's JSON keeps to what orjson does, where both are defined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
)
from trio_supervisor.wire import json_line, json_plain

trees = st.dictionaries(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)


@given(trees)
def test_codecs_read_each_other(tree: dict[str, object]) -> None:
    plain, quick = json_plain.encode_object(tree), json_line.encode_object(tree)
    assert json_line.decode_object(plain[:-1], 64) == tree
    assert json_plain.decode_object(quick[:-1], 64) == tree


@given(st.binary())
def test_any_line_is_object_or_remote_error(line: bytes) -> None:
    try:
        assert isinstance(json_plain.decode_object(line, 64), dict)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize("line", [b'{"a":NaN}', b'{"a":-Infinity}', b"[", b"[]", b"1"])
def test_line_refused_by_orjson_is_refused(line: bytes) -> None:
    for library in (json_line, json_plain):
        with pytest.raises(RemoteProtocolError):
            library.decode_object(line, 64)


def test_depth_is_limited() -> None:
    line = b'{"a":' * 65 + b"1" + b"}" * 65
    with pytest.raises(LimitExceededError):
        json_plain.decode_object(line, 64)
    with pytest.raises(RemoteProtocolError):
        json_plain.decode_object(b"[" * 100_000, 64)


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_unsendable_value_raises(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        json_plain.encode_object({"a": value})


def test_lone_surrogate_becomes_question_mark() -> None:
    """A strict reader takes the line, and refuses the name that is in it."""
    line = json_plain.encode_object({"name": "caf\udcff"})
    assert json_line.decode_object(line[:-1], 64) == {"name": "caf?"}
