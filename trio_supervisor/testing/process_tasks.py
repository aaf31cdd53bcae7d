"""Freeze and kill the tasks of one simulated process, as the kernel does a process's.

A killed process runs no ``finally`` block, and a stopped one nothing at all. trio has
no such thing for tasks, so their coroutines are wrapped when they are spawned: the
wrapper decides at each step whether the code behind it goes on.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import trio
from attrs import define, field
from trio._core._run import GLOBAL_RUN_CONTEXT, CancelStatus
from trio.lowlevel import Abort, RaiseCancelT, Task

_current: ContextVar[ProcessTasks | None] = ContextVar("process_tasks", default=None)


@define(eq=False)
class ProcessTasks:
    """The tasks of one simulated process, and whether they may run."""

    is_dead: bool = field(default=False, init=False)
    is_frozen: bool = field(default=False, init=False)
    _steps: set[_Steps] = field(factory=set, init=False)
    _generators: weakref.WeakSet[Any] = field(factory=weakref.WeakSet, init=False)
    """Async generators that its tasks have begun."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *main* and all tasks that it starts, until they end or are killed.

        It has to be within `wrapping_tasks`. *main* raises nothing. A
        cancellation cancels the tasks.
        """
        async with trio.open_nursery() as nursery:
            with self._scope:
                async with trio.open_nursery() as own:
                    token = _current.set(self)
                    try:
                        own.start_soon(main)
                    finally:
                        _current.reset(token)
            nursery.cancel_scope.cancel()

    def kill(self) -> None:
        """End all tasks; none of them runs another line."""
        if self.is_dead:
            return
        self.is_dead = True
        for generator in tuple(self._generators):
            # trio would run its finally blocks at the end.
            GLOBAL_RUN_CONTEXT.runner.asyncgens.alive.discard(generator)
            _keep_for_ever(ctypes.py_object(generator))
        for steps in tuple(self._steps):
            steps.unshield()
            steps.go_on()
        self._scope.cancel()

    def freeze(self) -> None:
        """Run no task from its next step on."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Let the tasks go on; each makes the step that was held back."""
        self.is_frozen = False
        for steps in tuple(self._steps):
            steps.go_on()


@contextmanager
def wrapping_tasks() -> Iterator[None]:
    """Have `ProcessTasks` run in this run of trio, for the length of the block."""
    wrapping = _TaskWrapping()
    hooks = sys.get_asyncgen_hooks()

    def begin(generator: AsyncGenerator[Any, Any]) -> None:
        if (tasks := _current.get()) is not None:
            tasks._generators.add(generator)
        if hooks.firstiter is not None:
            hooks.firstiter(generator)

    trio.lowlevel.add_instrument(wrapping)
    sys.set_asyncgen_hooks(firstiter=begin)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(firstiter=hooks.firstiter)
        trio.lowlevel.remove_instrument(wrapping)


class _TaskWrapping(trio.abc.Instrument):
    """Wraps each task that is spawned in a simulated process."""

    def task_spawned(self, task: Task) -> None:
        """Wrap *task*, which has not run yet."""
        if (tasks := task.context.get(_current)) is not None:
            steps = _Steps(task, task.coro, tasks)
            tasks._steps.add(steps)
            task.coro = steps  # type: ignore[assignment]


@define(eq=False)
class _Steps:
    """A coroutine that passes the steps of another one on, as long as it may."""

    _task: Task
    _inner: Coroutine[Any, Any, Any]
    _tasks: ProcessTasks
    _held_back: tuple[Callable[[Any], object], Any] | None = field(
        default=None, init=False
    )
    """The step to be made once it thaws."""
    _parked: Coroutine[Any, Any, Any] | None = field(default=None, init=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # cr_frame and so on, for a traceback

    def send(self, value: Any) -> object:
        """Make the next step."""
        return self._step(self._inner.send, value)

    def throw(self, error: BaseException) -> object:
        """Make the next step by raising *error*."""
        return self._step(self._inner.throw, error)

    def close(self) -> None:
        """Close the coroutine."""
        self._inner.close()

    def _step(self, step: Callable[[Any], object], value: Any) -> object:
        if self._held_back is not None:
            step, value = self._held_back
            self._held_back = self._parked = None
        if self._tasks.is_dead:
            self._forget()
            raise StopIteration  # for trio, the task has returned
        if self._tasks.is_frozen:
            self._held_back = step, value
            self._parked = _sleep(self._abort)
            return self._parked.send(None)
        try:
            return step(value)
        except BaseException:
            self._tasks._steps.discard(self)
            raise

    def go_on(self) -> None:
        """Make the step that was held back."""
        if self._parked is not None:
            self._parked = None
            trio.lowlevel.reschedule(self._task)

    def unshield(self) -> None:
        """Have a cancellation of the process reach the task wherever it waits."""
        status: CancelStatus | None = self._task._cancel_status
        while status is not None:
            if status._scope is self._tasks._scope:
                return
            status._scope.shield = False
            status = status.parent

    def _abort(self, _: RaiseCancelT) -> Abort:
        return Abort.FAILED  # a cancellation is delivered once it thaws

    def _forget(self) -> None:
        self._tasks._steps.discard(self)
        self._task._child_nurseries.clear()
        # Never collected: that would run its finally blocks, or warn of what it has not
        # awaited.
        _keep_for_ever(ctypes.py_object(self._inner))


_keep_for_ever: Final = ctypes.pythonapi.Py_IncRef


async def _sleep(abort: Callable[[RaiseCancelT], Abort]) -> None:
    await trio.lowlevel.wait_task_rescheduled(abort)
