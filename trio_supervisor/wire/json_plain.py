"""Encode a JSON object as one line, and decode it, with the standard library.

Used by commands that make one call: importing orjson takes longer than the call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from trio_supervisor.errors import LocalProtocolError, RemoteProtocolError
from trio_supervisor.wire.json_tree import Object, check_object, excerpt


def encode_object(tree: Mapping[str, object]) -> bytes:
    """Encode *tree* as one line, its newline included.

    A lone surrogate, such as in an argument that is not UTF-8, becomes a question mark:
    strict JSON readers refuse it.

    Raises:
        LocalProtocolError: a value has no JSON equivalent; the message names it.
    """
    try:
        text = json.dumps(
            tree, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError) as exc:
        raise LocalProtocolError(f"cannot be encoded as JSON: {exc}") from exc
    return text.encode("utf-8", "replace") + b"\n"


def decode_object(line: bytes, max_depth: int) -> Object:
    """Decode one *line*, given without its newline.

    Raises:
        LimitExceededError: it nests deeper than *max_depth*.
        RemoteProtocolError: it is not a JSON object.
    """
    try:
        tree = json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"not JSON: {exc}: {excerpt(line)}") from None
    return check_object(line, tree, max_depth)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")
