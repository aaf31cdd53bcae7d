"""Check JSON objects, whichever library decodes them. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias

from trio_supervisor.errors import LimitExceededError, RemoteProtocolError

Object: TypeAlias = dict[str, Any]
"""A JSON object: values are str, int, float, bool, None, lists and objects."""

_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STRING: Final = re.compile(rb'"[^"]*"')


class JsonLines(Protocol):
    """A module that encodes and decodes lines: `json_line` or `json_plain`."""

    def encode_object(self, tree: Mapping[str, object]) -> bytes: ...
    def decode_object(self, line: bytes, max_depth: int) -> Object: ...


def check_object(line: bytes, tree: object, max_depth: int) -> Object:
    """Return *tree*, decoded from *line*, if it is an object.

    Raises:
        LimitExceededError: it nests deeper than *max_depth*.
        RemoteProtocolError: it is not an object.
    """
    if type(tree) is not dict:
        raise RemoteProtocolError(f"not a JSON object: {excerpt(line)}")
    if is_deeper(line, max_depth):
        raise LimitExceededError(f"nested deeper than {max_depth} levels")
    return tree


def has_more_containers(line: bytes, limit: int) -> bool:
    """Return whether *line* has more than *limit* arrays and objects, without parsing.

    In a line that is not JSON, those before the mistake are counted correctly.
    """
    if line.count(b"[") + line.count(b"{") <= limit:
        return False
    return _brackets(line).count(b"[") > limit


def is_deeper(line: bytes, max_depth: int) -> bool:
    """Return whether *line*, valid JSON in UTF-8, nests deeper than *max_depth*.

    Reads the line, not the decoded objects: that takes a sixth of the time for the
    status of a thousand workers.
    """
    # Nearly all lines have fewer brackets than allowed levels.
    if line.count(b"[") + line.count(b"{") <= max_depth:
        return False
    marks = _brackets(line)
    for _ in range(max_depth):
        if not marks:
            return False
        marks = marks.replace(b"[]", b"")  # the innermost level
    return bool(marks)


def _brackets(line: bytes) -> bytes:
    """Return the brackets of *line* that are not within strings, as ``[`` and ``]``."""
    if b"\\" in line:  # a quote may be part of a string
        line = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Adjacent quotes are strings without brackets; the remaining strings have some.
    marks = line.translate(_ONE_KIND, _NO_MARKS).replace(b'""', b"")
    return _STRING.sub(b"", marks) if b'"' in marks else marks


def excerpt(line: bytes) -> str:
    """Return the beginning of *line*, for a message."""
    return ascii(line[:80])
