"""One JSON object to one line and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import orjson

from trio_supervisor.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
)

Object: TypeAlias = dict[str, Any]
"""A JSON object: values are str, int, float, bool, None, lists and objects."""


def encode_object(tree: Mapping[str, object]) -> bytes:
    """Encode *tree* as one line, its newline included.

    A float that is not finite becomes null, as in JavaScript; a lone surrogate, as in
    the name of a file that is not UTF-8, becomes a question mark.

    Raises:
        LocalProtocolError: JSON has no such value: the message says which.
    """
    try:
        return orjson.dumps(tree, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as exc:
        if "surrogates" not in str(exc):
            raise LocalProtocolError(f"not to be encoded as JSON: {exc}") from exc
    try:
        clean = _without_surrogates(tree)
        return orjson.dumps(clean, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, RecursionError) as exc:
        raise LocalProtocolError(f"not to be encoded as JSON: {exc}") from exc


def decode_object(line: bytes, max_depth: int) -> Object:
    """Decode one *line*, given without its newline.

    Raises:
        LimitExceededError: it nests deeper than *max_depth*.
        RemoteProtocolError: it is not a JSON object.
    """
    try:
        tree = orjson.loads(line)
    except ValueError as exc:
        raise RemoteProtocolError(f"not JSON: {exc}: {_excerpt(line)}") from None
    if type(tree) is not dict:
        raise RemoteProtocolError(f"not a JSON object: {_excerpt(line)}")
    if is_deeper(line, tree, max_depth):
        raise LimitExceededError(f"nested deeper than {max_depth} levels")
    return cast("Object", tree)


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


def _excerpt(line: bytes) -> str:
    return ascii(line[:80])


def _without_surrogates(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {
                _without_surrogates(key): _without_surrogates(item)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value
