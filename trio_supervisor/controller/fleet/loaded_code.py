"""Ask workers which code they run, for what no declaration can tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import trio

from trio_supervisor.controller.child.child import Child
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    NotConnectedError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.policy.reload import UNKNOWN_CODE
from trio_supervisor.process.code.loaded import first_modified
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.codec import parse_result
from trio_supervisor.wire.json_tree import Object

Ask: TypeAlias = Callable[[str, Object], Awaitable[Object]]
"""Calls the supervisor."""

# Answered by a thread beside the target, even while that is blocked: a worker that is
# slower is stopped, or has no processor [s].
_PATIENCE: Final = 5.0
_RETRY: Final = 0.1
"""[s]"""
_NOT_YET: Final = NotConnectedError("").wire_name
_MOST: Final = 20
"""As many are asked at a time, so that a thousand answers need no queue."""


async def modified_code(children: Iterable[Child], ask: Ask) -> dict[str, str]:
    """Return a file that is not what was loaded, by the name of the service that did.

    `UNKNOWN_CODE` in place of a file where a worker does not answer. Only processes
    with an agent are asked. A cancellation leaves nothing behind.
    """
    found: dict[str, str] = {}
    limit = trio.CapacityLimiter(_MOST)

    async def look(child: Child) -> None:
        async with limit:
            if child.plan.service in found:
                return  # another worker of it said so
            if (file := await _modified(child, ask)) is not None:
                found.setdefault(child.plan.service, file)

    async with open_nursery() as nursery:
        for child in children:
            if child.plan.connects and child.process is not None:
                nursery.start_soon(look, child)
    return found


async def _modified(child: Child, ask: Ask) -> str | None:
    # Two dozen types that no start needs.
    from trio_supervisor.wire.reports import LoadedReport

    try:
        with trio.fail_after(_PATIENCE):
            report = parse_result(await _answer(child, ask), LoadedReport)
    except (trio.TooSlowError, SupervisorError):
        return UNKNOWN_CODE
    if not report.files:
        return None
    files = [(file.path, file.after) for file in report.files]
    return await run_in_thread(first_modified, files)


async def _answer(child: Child, ask: Ask) -> Object:
    forward = {"name": child.name, "operation": {"do": "loaded_code"}}
    while True:
        try:
            return await ask("forward", forward)
        except (UnavailableError, ConnectionLostError):
            pass  # the supervisor was started a moment ago
        except CallFailedError as exc:
            if exc.error_class != _NOT_YET:
                raise
        await trio.sleep(_RETRY)
