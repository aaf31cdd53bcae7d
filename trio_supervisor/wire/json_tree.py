"""What holds for JSON objects, whichever library reads them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from trio_supervisor.errors import LimitExceededError, RemoteProtocolError

Object: TypeAlias = dict[str, Any]
"""A JSON object: values are str, int, float, bool, None, lists and objects."""


class JsonLines(Protocol):
    """What turns objects into lines and back: `json_line`, or `json_plain`."""

    def encode_object(self, tree: Mapping[str, object]) -> bytes: ...
    def decode_object(self, line: bytes, max_depth: int) -> Object: ...


def check_object(line: bytes, tree: object, max_depth: int) -> Object:
    """Return *tree*, which *line* encodes, if it is an object.

    Raises:
        LimitExceededError: it nests deeper than *max_depth*.
        RemoteProtocolError: it is none.
    """
    if type(tree) is not dict:
        raise RemoteProtocolError(f"not a JSON object: {excerpt(line)}")
    if is_deeper(line, tree, max_depth):
        raise LimitExceededError(f"nested deeper than {max_depth} levels")
    return tree


def is_deeper(line: bytes, tree: object, max_depth: int) -> bool:
    """Say whether *tree*, which *line* encodes, nests deeper than *max_depth*."""
    # Fewer brackets than levels, as in nearly all lines: no need to look.
    if line.count(b"[") + line.count(b"{") <= max_depth:
        return False
    level: list[Any] = [tree]
    for _ in range(max_depth):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list | tuple)
        ]
        if not level:
            return False
    return True


def excerpt(line: bytes) -> str:
    """Return the beginning of *line*, for a message."""
    return ascii(line[:80])
