"""Dispatch the calls that a worker answers: built-in operations and handlers."""

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
from trio_supervisor.link.answers import answers, find_answer
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.wire.codec import parse_operation
from trio_supervisor.wire.messages import Ping
from trio_supervisor.wire.operation import Side, operations_of
from trio_supervisor.wire.protocol import OPERATIONS
from trio_supervisor.wire.worker_messages import ListOperations
from trio_supervisor.worker.delivery import (
    PROGRESS,
    check_delivery,
    deliver,
    without_progress,
)
from trio_supervisor.worker.diagnostics import WorkerDiagnostics
from trio_supervisor.worker.handlers import Handlers, to_result
from trio_supervisor.worker.traced import traced

logger = logging.getLogger(__name__)

Run = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]
"""Calls a function with arguments where the target runs, and returns its result."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


@contextmanager
def _naming_exhausted_resource() -> Iterator[None]:
    """Raise ExhaustedError with the name of the resource that the worker is out of."""
    try:
        yield
    except MemoryError as exc:
        raise ExhaustedError("the worker is out of memory") from exc
    except RecursionError as exc:
        limit = sys.getrecursionlimit()
        raise ExhaustedError(
            f"the worker's recursion limit is too low (sys.setrecursionlimit({limit}))"
        ) from exc
    except OSError as exc:
        if exc.errno not in _EXHAUSTED:
            raise
        raise ExhaustedError(f"in the worker: {os.strerror(exc.errno)}") from exc


async def _await_named(answer: Awaitable[Fields]) -> Fields:
    with _naming_exhausted_resource():
        return await answer


@define(eq=False)
class Operations:
    """Answers the calls that arrive at one worker, in its agent's thread."""

    _diagnostics: WorkerDiagnostics
    _handlers: Handlers
    _run: Callable[[], Run | None]
    """Returns what runs functions beside the target; None: it does not run yet."""

    def dispatch(self, call: IncomingCall) -> Answer:
        """Answer *call*, or return the coroutine that does."""
        if call.do not in OPERATIONS:
            return self._handle(call)
        check_delivery(call)
        return deliver(call, self._answer_named(without_progress(call)))

    def _answer_named(self, call: IncomingCall) -> Answer:
        """Answer *call*; name the resource if the process is out of one."""
        with _naming_exhausted_resource():
            answer = self._answer(call)
        return _await_named(answer) if isinstance(answer, Awaitable) else answer

    def _answer(self, call: IncomingCall) -> Answer:
        operation = parse_operation(call.do, call.arguments)
        for answerer in (self._diagnostics, self):
            if (method := find_answer(answerer, operation)) is not None:
                return method(operation, call)
        return self._handle(call)

    @answers(Ping)
    def ping(self, operation: Ping, call: IncomingCall) -> Fields:
        return {}

    @answers(ListOperations)
    def list_operations(self, operation: ListOperations, call: IncomingCall) -> Fields:
        return {
            "operations": [*operations_of(Side.WORKER)],
            "handlers": self._handlers.describe(),
        }

    def _handle(self, call: IncomingCall) -> Answer:
        handler = self._handlers.find(call.do)
        given = call.arguments
        if PROGRESS not in handler.parameters:
            given = {name: value for name, value in given.items() if name != PROGRESS}
        arguments = handler.bind(given)
        run = self._run()
        if run is None:
            raise UnavailableError("the worker's target has not started yet; try again")
        function = handler.function
        if call.trace is not None:
            function = traced(function, call.trace)
        return _run_handler(run, handler.name, function, arguments)


async def _run_handler(
    run: Run, name: str, function: Callable[..., Any], arguments: dict[str, Any]
) -> Fields:
    try:
        result = await run(function, arguments)
    except (Exception, trio.Cancelled):
        raise
    except BaseException as exc:
        # SystemExit, KeyboardInterrupt, or a group of them: this call fails, but the
        # worker continues.
        logger.error("handler %r failed", name, exc_info=exc)
        problem = f"{name!r} failed ({_name_of(exc)}); see the worker's log"
        raise OperationFailedError(problem) from None
    return to_result(name, result)


def _name_of(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return type(exc).__name__
