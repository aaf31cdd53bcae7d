"""Pass on what a worker writes as it writes it, and what is typed for it."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Final

import trio

from trio_supervisor.application import Command
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.core import ControllerCore
from trio_supervisor.errors import (
    BadRequestError,
    NoSuchWorkerError,
    UnavailableError,
)
from trio_supervisor.link.peer import Fields, IncomingCall
from trio_supervisor.process.output.attachment import ProcessChange
from trio_supervisor.process.output.hub import ChildOutput, OutputHub
from trio_supervisor.wire.controller_messages import Attach, TypeKeys

# How long a program may leave unread what was typed [s].
_READ_WITHIN: Final = 1.0


async def attach(core: ControllerCore, call: IncomingCall, operation: Attach) -> Fields:
    """Tell the state of the worker's process, and what it writes, until cancelled.

    Raises:
        NoSuchWorkerError: there is none of that name, or no longer.
    """
    child = _worker(core, operation.name)
    hub = _hub_of(core, child)
    with hub.attach(child.name, child.plan.generation) as attachment:
        _set_size(core, child, _size_of(operation))
        process, output = child.process, _output_of(core, child)
        change = ProcessChange(
            child.last_process_id,
            process is not None,
            _has_terminal(core, child) if output is None else output.has_terminal,
        )
        await call.stream({"entries": [_entry(change)], "missed": 0})
        async for part in attachment:
            entries = [_entry(part.item)]
            await call.stream({"entries": entries, "missed": part.missed})
    if child.name not in core.members.by_name:
        raise NoSuchWorkerError(f"{child.name} was removed")
    return {}


async def type_keys(core: ControllerCore, operation: TypeKeys) -> Fields:
    """Write to the terminal of a worker.

    Raises:
        BadRequestError: the data is not in base64.
        UnavailableError: the worker has no terminal, or does not read from it.
    """
    child = _worker(core, operation.name)
    try:
        keys = b64decode(operation.data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError("data: expected base64") from None
    _set_size(core, child, _size_of(operation))
    if not keys:
        return {}
    output = _output_of(core, child)
    if output is None:
        raise UnavailableError(f"{child.name} is not running")
    has_typed = False
    with trio.move_on_after(_READ_WITHIN) as scope, suppress(OSError):
        has_typed = await output.type(keys)
    if scope.cancelled_caught:
        raise UnavailableError(f"{child.name} does not read what is typed")
    if not has_typed:
        raise UnavailableError(f"{child.name} has no terminal; input needs tty=True")
    return {}


def _worker(core: ControllerCore, name: str) -> Child:
    """Return the worker *name*, or the only one of that service.

    Raises:
        NoSuchWorkerError: there is none.
        BadRequestError: the service has several.
    """
    found = core.members.choose([name])
    if len(found) > 1:
        names = ", ".join(child.name for child in found)
        raise BadRequestError(f"{name} has several workers; name one of them: {names}")
    return found[0]


def _hub_of(core: ControllerCore, child: Child) -> OutputHub:
    """Return what reads the output of *child*.

    Raises:
        UnavailableError: it is not captured.
    """
    if core.hub is not None and _has_terminal(core, child):
        return core.hub
    return core.captured_output()


def _has_terminal(core: ControllerCore, child: Child) -> bool:
    service = core.fleet.service_of(child)
    return isinstance(service, Command) and service.tty


def _output_of(core: ControllerCore, child: Child) -> ChildOutput | None:
    if child.process is None:
        return None
    return core.generation_factory.context.outputs.get(child.process.pid)


def _set_size(core: ControllerCore, child: Child, size: tuple[int, int] | None) -> None:
    """Set the size of the worker's terminal, and of those of its later processes."""
    if size is None or core.hub is None:
        return
    core.hub.set_size(child.name, size)
    if (output := _output_of(core, child)) is not None:
        with suppress(OSError):
            output.resize(size)


def _size_of(operation: Attach | TypeKeys) -> tuple[int, int] | None:
    if operation.lines is None or operation.columns is None:
        return None
    return operation.lines, operation.columns


def _entry(item: bytes | ProcessChange) -> Fields:
    if isinstance(item, bytes):
        return {"data": b64encode(item).decode("ascii")}
    return {
        "is_running": item.is_running,
        "process_id": item.process_id,
        "has_terminal": item.has_terminal,
    }
