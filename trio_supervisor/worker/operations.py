"""What a worker answers."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import define

from trio_supervisor.errors import (
    ExhaustedError,
    OperationFailedError,
    UnavailableError,
)
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.wire.codec import parse_operation
from trio_supervisor.wire.messages import (
    OPERATIONS,
    AllocationTraceStart,
    AllocationTraceStop,
    Descriptors,
    Doctor,
    GarbageProfile,
    GarbageProfileStart,
    GarbageProfileStop,
    ListOperations,
    LoadedCode,
    LockDump,
    MemoryDump,
    MemorySample,
    Ping,
    Profile,
    SchedulerDump,
    SlowTasks,
    ThreadDump,
)
from trio_supervisor.worker.delivery import (
    PROGRESS,
    check_delivery,
    deliver,
    without_progress,
)
from trio_supervisor.worker.diagnostics import Looking
from trio_supervisor.worker.handlers import Handler, Handlers, result_fields

logger = logging.getLogger(__name__)

Run = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]
"""Calls a function with arguments where the target runs, and returns its result."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

_BUILT_IN = (
    "ping",
    "thread_dump",
    "scheduler_dump",
    "lock_dump",
    "descriptors",
    "slow_tasks",
    "loaded_code",
    "memory_sample",
    "allocation_trace_start",
    "allocation_trace_stop",
    "memory_dump",
    "garbage_profile",
    "garbage_profile_start",
    "garbage_profile_stop",
    "profile",
    "doctor",
    "operations",
)


@contextmanager
def _naming_what_is_missing() -> Iterator[None]:
    try:
        yield
    except MemoryError as exc:
        raise ExhaustedError("the worker can get no memory for it") from exc
    except RecursionError as exc:
        limit = sys.getrecursionlimit()
        raise ExhaustedError(
            f"the worker has set too low a recursion limit for it ({limit})"
        ) from exc
    except OSError as exc:
        if exc.errno not in _EXHAUSTED:
            raise
        raise ExhaustedError(f"in the worker: {os.strerror(exc.errno)}") from exc


async def _in_time(answer: Awaitable[Fields]) -> Fields:
    with _naming_what_is_missing():
        return await answer


@define(eq=False)
class Operations:
    """Answers the calls that come to one worker, in its agent's thread."""

    _looking: Looking
    _handlers: Handlers
    _run: Callable[[], Run | None]
    """Returns what runs functions beside the target; None: it does not run yet."""

    def dispatch(self, call: IncomingCall) -> Answer:
        """Answer *call*, or return what does."""
        if call.do not in OPERATIONS:
            return self._handle(call)
        check_delivery(call)
        return deliver(call, self._try_to_look(without_progress(call)))

    def _try_to_look(self, call: IncomingCall) -> Answer:
        """Answer *call*; a process that has run out of something is told by name."""
        with _naming_what_is_missing():
            answer = self._look(call)
        return _in_time(answer) if isinstance(answer, Awaitable) else answer

    def _look(self, call: IncomingCall) -> Answer:
        looking = self._looking
        match parse_operation(call.do, call.arguments):
            case Ping():
                return {}
            case ThreadDump() as operation:
                return looking.threads(operation)
            case SchedulerDump():
                return looking.scheduler()
            case LockDump():
                return looking.locks()
            case Descriptors():
                return looking.descriptors()
            case SlowTasks():
                return looking.slow_tasks()
            case LoadedCode():
                return looking.loaded_code()
            case MemorySample(engine="memray") as operation:
                return looking.allocations(call, operation)
            case AllocationTraceStart():
                return looking.trace_start()
            case AllocationTraceStop():
                return looking.trace_stop()
            case MemorySample() as operation:
                return looking.memory_sample(call, operation)
            case MemoryDump() as operation:
                return looking.memory_dump(call, operation)
            case GarbageProfile() as operation:
                return looking.garbage_profile(call, operation)
            case GarbageProfileStart():
                return looking.garbage_start()
            case GarbageProfileStop():
                return looking.garbage_stop()
            case Profile() as operation:
                return looking.profile(call, operation)
            case Doctor() as operation:
                return looking.doctor(call, operation)
            case ListOperations():
                return {
                    "operations": list(_BUILT_IN),
                    "handlers": self._handlers.describe(),
                }
        return self._handle(call)

    def _handle(self, call: IncomingCall) -> Answer:
        handler = self._handlers.find(call.do)
        given = call.arguments
        if PROGRESS not in handler.parameters:
            given = {name: value for name, value in given.items() if name != PROGRESS}
        arguments = handler.bind(given)
        run = self._run()
        if run is None:
            raise UnavailableError("the worker does not run yet: try again")
        return _answer(run, handler, arguments)


async def _answer(run: Run, handler: Handler, arguments: dict[str, Any]) -> Fields:
    try:
        result = await run(handler.function, arguments)
    except (Exception, trio.Cancelled):
        raise
    except BaseException as exc:
        # SystemExit, KeyboardInterrupt, or a group of them: it is for that one call to
        # fail, and not for the worker to end.
        logger.error("%r failed", handler.name, exc_info=exc)
        problem = f"{handler.name!r} failed ({_name_of(exc)}); see the log"
        raise OperationFailedError(problem) from None
    return result_fields(handler.name, result)


def _name_of(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return type(exc).__name__
