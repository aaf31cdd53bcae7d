"""Input that no client of ours sends, and what its sender gets."""

from __future__ import annotations

import json
import os
from typing import Any, Final, NamedTuple


class HostileInput(NamedTuple):
    """One kind of hostile input, on a connection of its own."""

    kind: str
    """As the table in docs/reliability.md names it."""
    data: bytes
    answers: tuple[str, ...]
    """For each answer the class of its error; empty: it succeeds."""
    is_closed: bool
    """Whether the server closes the connection."""


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def nested(depth: int) -> bytes:
    return b'{"id":2,"do":"ping","x":' + b"[" * depth + b"]" * depth + b"}\n"


PING: Final = line(id=2, do="ping")
REGISTER: Final = {"do": "register", "state": {"process_id": os.getpid()}}
_CLOSED: Final = ("RemoteProtocol",)
_FORWARD: Final = {"do": "forward", "name": "web.0"}

INPUTS: Final = tuple(
    HostileInput(*row)
    for row in (
        ("not JSON", b"hello\n", _CLOSED, True),
        ("not UTF-8", b"\xff\xfe{\n", _CLOSED, True),
        ("no object", b"[1]\n", _CLOSED, True),
        ("NaN", b'{"id":2,"do":"ping","x":NaN}\n', _CLOSED, True),
        ("a number out of range", b'{"id":2,"do":"ping","x":1e999}\n', _CLOSED, True),
        ("an id with 400 digits", b'{"id":1' + b"0" * 400 + b"}\n", _CLOSED, True),
        ("no id", line(do="ping"), _CLOSED, True),
        ("a negative id", line(id=-2, do="ping"), _CLOSED, True),
        ("an id of another type", line(id=True, do="ping"), _CLOSED, True),
        ("nested ten thousand deep", nested(10_000), _CLOSED, True),
        ("nested deeper than 64 levels", nested(65), ("LimitExceeded",), True),
        (
            "a call of 9 MB",
            line(id=2, do="ping", x="a" * 9_000_000) + line(id=4, do="ping"),
            ("LimitExceeded", ""),
            False,
        ),
        ("duplicate keys: the last counts", PING[:-2] + b',"id":2}\n', ("",), False),
        ("unknown fields: ignored", line(id=2, do="ping", x=1), ("",), False),
        ("empty lines: ignored", b"\n\n\n" + PING, ("",), False),
        (
            "an unknown operation",
            line(id=2, do="nope"),
            ("UnknownOperation",),
            False,
        ),
        (
            "an argument of another type",
            line(id=2, do="restart", names=5),
            ("BadRequest",),
            False,
        ),
        (
            "an id that is in use",
            line(id=2, **{**_FORWARD, "operation": {"do": "hang"}}) + PING,
            ("RemoteProtocol",),
            False,
        ),
        (
            "the cancellation of an unknown call",
            line(id=44, cancel=True) + PING,
            ("",),
            False,
        ),
        ("an answer to nothing", line(id=3, finished=True) + PING, ("",), False),
        (
            "a registration of another process",
            line(id=2, do="register", state={"process_id": 1}),
            ("NotPermitted",),
            False,
        ),
        (
            "a second registration: renews the state",
            line(id=2, **REGISTER) + line(id=4, **REGISTER),
            ("", ""),
            False,
        ),
        (
            "a call to a worker that is not there",
            line(id=2, **{**_FORWARD, "name": "gone.0", "operation": {"do": "ping"}}),
            ("NoSuchWorker",),
            False,
        ),
        (
            "a call that a worker is to pass on",
            line(id=2, **{**_FORWARD, "operation": {**_FORWARD, "operation": {}}}),
            ("UnknownOperation",),
            False,
        ),
        ("half a line, then silence", b'{"id":2,', (), False),
    )
)
