"""Read and write the fields that frame every message.

``id``, ``do``, ``finished``, ``failed`` and ``error`` are the envelope; all other
fields are arguments of a call or its result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from trio_supervisor.errors import (
    CallFailedError,
    LocalProtocolError,
    RemoteProtocolError,
    SupervisorError,
)
from trio_supervisor.wire.brief import brief, cut
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.limits import MAX_NAME

# The largest signed 64-bit integer: the limit of peers in other languages.
MAX_ID: Final = 2**63 - 1
ENVELOPE: Final = frozenset({"id", "do", "finished", "failed", "error"})

# The beginning of a message, as all known peers write it.
_HEAD: Final = re.compile(
    rb'\s*\{\s*"id"\s*:\s*(0|[1-9][0-9]{0,18})\s*,'
    rb'(?:\s*"do"\s*:\s*"([^"\\]{1,80})")?'
)
_LARGE: Final = re.compile(
    rb'\s*\{\s*"id"\s*:\s*(0|[1-9][0-9]{0,18})\s*,'
    rb'(?:\s*"finished"\s*:\s*(true|false)\s*,)?(?!\s*"do"\s*:)'
)


class Head(NamedTuple):
    """The beginning of a line that is not parsed."""

    id: int
    do: str | None
    """The operation; None: the line is an answer, or *do* follows later."""


def read_head(line: bytes) -> Head | None:
    """Return the head of *line*; None if it does not begin with a valid id."""
    found = _HEAD.match(line)
    if found is None or (id_ := int(found[1])) > MAX_ID:
        return None
    return Head(id_, None if found[2] is None else found[2].decode("utf-8", "replace"))


def split_answer(line: bytes) -> tuple[bool, bytes] | None:
    """Return whether the answer *line* is the last one, and its other members.

    None: the line does not begin like an answer, or does not end like an object.
    """
    line = line.rstrip()
    if (found := _LARGE.match(line)) is None or not line.endswith(b"}"):
        return None
    return found[2] == b"true", line[found.end() : -1]


def check_names(fields: Mapping[str, object]) -> None:
    """Check that *fields* has no field of the envelope.

    Raises:
        LocalProtocolError: it has; the message names them.
    """
    if not ENVELOPE.isdisjoint(fields):
        names = ", ".join(sorted(ENVELOPE.intersection(fields)))
        raise LocalProtocolError(f"reserved names of arguments or results: {names}")


def read_flag(tree: Object, name: str) -> bool:
    """Return the boolean field *name*, which may be missing.

    Raises:
        RemoteProtocolError: it is not a boolean.
    """
    value = tree.get(name, False)
    if type(value) is not bool:
        raise RemoteProtocolError(f"{name}: expected true or false, got {brief(value)}")
    return value


class PlainFailure(SupervisorError):  # noqa: N818 (a form on the wire, not an error)
    """A failure in the form of Ruby's server: a string, with fields beside it."""

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields


def failure(error: SupervisorError) -> Object:
    """Return the fields of an answer that failed with *error*, without the id."""
    if isinstance(error, PlainFailure):
        plain = {"finished": True, "failed": True, "error": str(error)}
        return {**plain, **error.fields}
    message = error.message if isinstance(error, CallFailedError) else str(error)
    return {
        "finished": True,
        "failed": True,
        "error": {"class": error.wire_name, "message": message},
    }


def read_failure(tree: Object) -> CallFailedError:
    """Return the error of a failed answer: an object, or a plain string (Ruby)."""
    match tree.get("error"):
        case {"class": str(name), "message": str(message)}:
            return CallFailedError(name[:MAX_NAME], cut(message))
        case {"message": str(message), **others} if others.get("class") is None:
            return CallFailedError("", cut(message))
        case {"class": str(name)}:
            return CallFailedError(name[:MAX_NAME], "the peer gave no reason")
        case str(message):
            return CallFailedError("", cut(message))
        case error:
            return CallFailedError("", f"the peer gave no reason: {brief(error)}")
