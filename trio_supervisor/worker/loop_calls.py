"""Call functions in the main event loop, for the agent's loop in another thread."""

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
"""Schedules a callback in a loop, from any thread; RuntimeError: it has ended."""


def soon_here() -> Soon:
    """Return a function that schedules callbacks in this loop from any thread."""
    try:
        return trio.lowlevel.current_trio_token().run_sync_soon
    except RuntimeError:
        # Imported here: a worker without asyncio is ready 10 ms earlier.
        import asyncio

        # In this loop's context: in the agent's, anyio would not detect the loop.
        soon = asyncio.get_running_loop().call_soon_threadsafe
        return partial(soon, context=copy_context())


def soon_in_a_task() -> Soon:
    """Return the same for a loop that anyio did not start.

    In a callback of such an asyncio loop, anyio does not detect the loop; in a task it
    does. So each callback runs in a task.
    """
    try:
        return trio.lowlevel.current_trio_token().run_sync_soon
    except RuntimeError:
        import asyncio

        loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()  # the loop keeps only weak references

    async def run(function: Callable[[], object]) -> None:
        function()

    def start(function: Callable[[], object]) -> None:
        task = loop.create_task(run(function))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return lambda function: loop.call_soon_threadsafe(start, function)


@define(eq=False)
class LoopCaller:
    """Runs calls of the agent as tasks in the main loop's task group."""

    _group: anyio.abc.TaskGroup | None
    _soon: Soon

    async def call(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        """Call *function* in a task of the main loop; called in the agent's loop.

        Its exceptions are raised. A cancellation cancels the task.

        Raises:
            UnavailableError: the main loop has ended, or accepts no more calls.
        """
        agent = trio.lowlevel.current_trio_token()
        call = LoopCall(function, arguments, agent)
        try:
            self._soon(lambda: self._start(call))
        except RuntimeError:
            raise UnavailableError("the main loop has ended") from None
        try:
            await call.is_over.wait()
        finally:
            if not call.is_over.is_set():
                with suppress(RuntimeError):
                    self._soon(call.cancel)
        if call.error is not None:
            raise call.error
        return call.result

    def close(self) -> None:
        """Accept no more calls; called in the main loop."""
        self._group = None

    def _start(self, call: LoopCall) -> None:
        if self._group is None:
            call.refuse()
        else:
            self._group.start_soon(call.run)


@define(eq=False)
class LoopCall:
    """One call of a function in the main loop, for the agent's loop."""

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
            self.error = UnavailableError("the call was cancelled in the worker")
            raise
        except BaseExceptionGroup as exc:
            cancelled, other = exc.split(anyio.get_cancelled_exc_class())
            self.error = other or UnavailableError(
                "the call was cancelled in the worker"
            )
            if cancelled is not None:
                raise cancelled from None
        except BaseException as exc:
            # SystemExit too: outside of this task it would stop the worker.
            self.error = exc
        finally:
            self._finish()

    def refuse(self) -> None:
        """Answer that the main loop has ended."""
        self.error = UnavailableError("the main loop has ended")
        self._finish()

    def cancel(self) -> None:
        """Cancel the call; called in the main loop."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def _finish(self) -> None:
        with suppress(trio.RunFinishedError):
            self._agent.run_sync_soon(self.is_over.set)
