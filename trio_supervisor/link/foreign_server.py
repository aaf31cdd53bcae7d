"""Translate calls for the server of Ruby's async-container-supervisor.

It ignores unknown arguments, and its ``restart`` ends the whole application, so only
calls that it cannot misunderstand are sent.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from trio_supervisor import errors
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    SupervisorError,
)
from trio_supervisor.policy.addressing import Address, find_one
from trio_supervisor.wire.json_tree import Object

PROBE: Final[tuple[str, Object]] = (
    "forward",
    {"connection_id": "", "operation": {"do": "ping"}},
)
"""A call that every server supports and that has no effect: no connection has this
id."""

_ASKED_TO_RELOAD: Final[Object] = {
    "generation": 0,
    "lines": ["reload requested; this server does not report when it is complete"],
}
_OUR_ERRORS: Final = frozenset(
    name.removesuffix("Error") for name in vars(errors) if name.endswith("Error")
)
_ANSWERING: Final = frozenset(
    {
        *("thread_dump", "scheduler_dump", "memory_dump", "memory_sample"),
        *("garbage_profile", "garbage_profile_stop", "profile", "doctor"),
        *("lock_dump", "descriptors", "slow_tasks", "operations"),
    }
)
_REFUSALS: Final = {
    "restart": (
        "it cannot restart workers, and its own `restart` would end the application; "
        "use `reload` to replace all workers, or `shutdown` to end the application"
    ),
    "stop": "it cannot stop workers",
    "start": "it cannot start workers",
    "scale": "it cannot change the number of workers",
    "abort_reload": "it cannot abort a reload",
    "health": "it does not report the health of the application",
    "metrics": "it has no metrics",
    "diff": "it does not measure generations",
    "events": "it does not record events",
    "logs": "it does not keep output",
}


class ForeignServerError(SupervisorError):
    """The server is not trio_supervisor's, and does not support the call."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server is not trio_supervisor: {reason}")


def is_foreign(error: CallFailedError | None) -> bool:
    """Return from the answer to `PROBE` whether the server is a foreign one.

    Args:
        error: Error of the probe. Our server names one of our error classes, Ruby's
            does not.
    """
    return error is not None and error.error_class not in _OUR_ERRORS


def addresses(connections: Sequence[Mapping[str, Any]]) -> list[Address]:
    """Return the addresses of the *connections* in its ``status``."""
    return [
        Address(
            name=_name_of(connection),
            process_id=connection.get("process_id"),
            connection_id=connection.get("connection_id"),
            is_managed=False,
        )
        for connection in connections
    ]


def workers(connections: Sequence[Mapping[str, Any]]) -> list[Object]:
    """Return the fields of a `WorkerStatus` for each of the *connections*."""
    return [
        {
            "name": one.name,
            "service": None,
            "process_id": one.process_id,
            "state": "unknown",
            "connected": True,
            "connection_id": one.connection_id,
            "incarnation": 1,
            "restarts": 0,
            "uptime": None,
            "is_managed": False,
        }
        for one in addresses(connections)
    ]


def conversation(
    do: str, arguments: Mapping[str, Any]
) -> Generator[tuple[str, Object], Object, Object]:
    """Yield the calls that are equivalent to ours; return the answer.

    The caller makes each call, and sends its answer into the generator.

    Raises:
        ForeignServerError: the server has no such call.
        NoSuchWorkerError, AmbiguousNameError: the name matches no worker, or several.
        ConnectionLostError: the worker exited before it answered.
    """
    if do == "ping":
        return {}  # the server has answered the probe
    connections: Sequence[Mapping[str, Any]] = ()
    if do == "workers" or (do == "forward" and arguments.get("connection_id") is None):
        connections = (yield "status", {}).get("connections", ())
    if do == "workers" and not arguments.get("wait_ready"):
        return {"workers": workers(connections)}
    answer = yield translate(do, arguments, connections)
    if do == "forward" and not answer and _must_answer(arguments["operation"]):
        # This server answers so when the connection to the worker closes.
        raise ConnectionLostError("the worker's connection closed before it answered")
    return _ASKED_TO_RELOAD if do == "reload" else answer


def _must_answer(operation: Mapping[str, Any]) -> bool:
    """Return whether the answer to *operation* must not be empty."""
    return operation.get("do") in _ANSWERING and "log" not in operation


def translate(
    do: str, arguments: Mapping[str, Any], connections: Sequence[Mapping[str, Any]]
) -> tuple[str, Object]:
    """Return the call of the foreign server that is equivalent to ours.

    Args:
        connections: Those in its ``status``, to forward to a name.

    Raises:
        ForeignServerError: the server has no such call.
        NoSuchWorkerError, AmbiguousNameError: the name matches no worker, or several.
    """
    match do:
        case "status":
            return do, {}
        case "forward":
            id_ = arguments.get("connection_id")
            if id_ is None:
                word = arguments.get("name") or ""
                id_ = find_one(word, addresses(connections)).connection_id
            return do, {"connection_id": id_, "operation": arguments.get("operation")}
        case "reload" if not any(arguments.values()):
            return "restart", {"signal": "HUP"}
        case "reload":
            raise ForeignServerError("it can only reload the whole application")
        case "shutdown":
            return "restart", {"signal": "INT"}
        case "workers":
            raise ForeignServerError("it does not report when workers are ready")
    raise ForeignServerError(_REFUSALS.get(do, f"it does not support {do!r:.80}"))


def _name_of(connection: Mapping[str, Any]) -> str:
    state = connection.get("state")
    name = state.get("name") if isinstance(state, dict) else None
    if isinstance(name, str) and name:
        return name
    return f"pid-{connection.get('process_id')}"
