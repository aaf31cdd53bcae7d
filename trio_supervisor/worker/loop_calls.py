"""Run functions in an event loop, on behalf of the agent's loop in another thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.abc
import trio
from attrs import define, field

from trio_supervisor.errors import UnavailableError

Arguments: TypeAlias = dict[str, Any]
Soon: TypeAlias = Callable[[Callable[[], object]], object]
"""Has a loop call a function, from any thread; RuntimeError: it has ended."""


def soon_here() -> Soon:
    """Return what runs a function in this loop, called from any thread."""
    try:
        return trio.lowlevel.current_trio_token().run_sync_soon
    except RuntimeError:
        # Only here: what has no use for it is ready 10 ms sooner without.
        import asyncio

        # In the context of this loop: by that of the agent, anyio knows no loop.
        soon = asyncio.get_running_loop().call_soon_threadsafe
        return partial(soon, context=copy_context())


def soon_in_a_task() -> Soon:
    """Return the same for a loop that anyio need not have started.

    In a callback of such a loop of asyncio, anyio knows no loop; in a task it does.
    """
    try:
        return trio.lowlevel.current_trio_token().run_sync_soon
    except RuntimeError:
        import asyncio

        loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    async def run(function: Callable[[], object]) -> None:
        function()

    def start(function: Callable[[], object]) -> None:
        task = loop.create_task(run(function))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return lambda function: loop.call_soon_threadsafe(start, function)


@define(eq=False)
class Visits:
    """Where the visits of the agent run: a task group, and the way to its loop."""

    _group: anyio.abc.TaskGroup | None
    _soon: Soon

    async def call(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        """Call *function* in that loop, in a task of its own; called in the agent's.

        Raises what it raises. A cancellation cancels it, where it can be.

        Raises:
            UnavailableError: that loop has ended, or takes no visits any more.
        """
        agent = trio.lowlevel.current_trio_token()
        visit = Visit(function, arguments, agent)
        try:
            self._soon(lambda: self._admit(visit))
        except RuntimeError:
            raise UnavailableError("the main loop has ended") from None
        try:
            await visit.is_over.wait()
        finally:
            if not visit.is_over.is_set():
                with suppress(RuntimeError):
                    self._soon(visit.cancel)
        if visit.error is not None:
            raise visit.error
        return visit.result

    def close(self) -> None:
        """Take no more of them; called in the loop that they come to."""
        self._group = None

    def _admit(self, visit: Visit) -> None:
        if self._group is None:
            visit.refuse()
        else:
            self._group.start_soon(visit.run)


@define(eq=False)
class Visit:
    """A call of a function in the main loop, on behalf of the agent's loop."""

    _function: Callable[..., Any]
    _arguments: Arguments
    _agent: trio.lowlevel.TrioToken
    is_over: trio.Event = field(factory=trio.Event, init=False)
    """Set in the agent's loop."""
    result: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    _scope: anyio.CancelScope | None = field(default=None, init=False)
    _is_cancelled: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Make the call, in the main loop."""
        if self._is_cancelled:
            return
        try:
            with anyio.CancelScope() as self._scope:
                result = self._function(**self._arguments)
                if inspect.isawaitable(result):
                    result = await result
                self.result = result
        except anyio.get_cancelled_exc_class():
            self.error = UnavailableError("it was cancelled in the worker")
            raise
        except BaseExceptionGroup as exc:
            cancelled, other = exc.split(anyio.get_cancelled_exc_class())
            self.error = other or UnavailableError("it was cancelled in the worker")
            if cancelled is not None:
                raise cancelled from None
        except BaseException as exc:
            # SystemExit too: outside of this task it would end the worker.
            self.error = exc
        finally:
            self._tell()

    def refuse(self) -> None:
        """Say that the main loop takes no calls any more."""
        self.error = UnavailableError("the main loop has ended")
        self._tell()

    def cancel(self) -> None:
        """Break it off, in the main loop."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def _tell(self) -> None:
        with suppress(trio.RunFinishedError):
            self._agent.run_sync_soon(self.is_over.set)
