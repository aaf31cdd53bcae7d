"""Encode a JSON object as one line, and decode it, with orjson."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from trio_supervisor.errors import LocalProtocolError, RemoteProtocolError
from trio_supervisor.wire.json_tree import Object, check_object, excerpt


def encode_object(tree: Mapping[str, object]) -> bytes:
    """Encode *tree* as one line, its newline included.

    A float that is not finite becomes null, as in JavaScript. A lone surrogate, such as
    in the name of a file that is not UTF-8, becomes a question mark.

    Raises:
        LocalProtocolError: a value has no JSON equivalent; the message names it.
    """
    try:
        return orjson.dumps(tree, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as exc:
        if "surrogates" not in str(exc):
            raise LocalProtocolError(f"cannot be encoded as JSON: {exc}") from exc
    try:
        clean = _without_surrogates(tree)
        return orjson.dumps(clean, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, RecursionError) as exc:
        raise LocalProtocolError(f"cannot be encoded as JSON: {exc}") from exc


def decode_object(line: bytes, max_depth: int) -> Object:
    """Decode one *line*, given without its newline.

    Raises:
        LimitExceededError: it nests deeper than *max_depth*.
        RemoteProtocolError: it is not a JSON object.
    """
    try:
        tree = orjson.loads(line)
    except ValueError as exc:
        raise RemoteProtocolError(f"not JSON: {exc}: {excerpt(line)}") from None
    return check_object(line, tree, max_depth)


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
