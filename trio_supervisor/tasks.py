"""Protect tasks and blocks from a KeyboardInterrupt in the middle of their code.

When SIGINT arrives, trio raises KeyboardInterrupt in the running Python code, unless a
frame on the stack is protected; then it is raised at the next checkpoint of the main
task. A new task is never protected. So code that has to clean up starts its tasks with
this module, and wraps its public blocks in `interrupt_safe`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, TypeVarTuple

import trio
from attrs import define, field, frozen
from trio.lowlevel import enable_ki_protection

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


@frozen(eq=False)
class ProtectedNursery:
    """A `trio.Nursery` whose tasks are protected; made by `open_nursery`."""

    _inner: trio.Nursery

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around all of its tasks."""
        return self._inner.cancel_scope

    def start_soon(
        self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts
    ) -> None:
        """Run *function* in a new task."""
        self._inner.start_soon(_protected, function, *args, name=function)

    async def start(
        self, function: Callable[..., Awaitable[object]], *args: Any
    ) -> Any:
        """Run *function* in a new task, and wait until it calls ``task_status``."""
        return await self._inner.start(_protected_start, function, *args, name=function)


@enable_ki_protection
async def _protected(function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
    await function(*args)


@enable_ki_protection
async def _protected_start(
    function: Callable[..., Awaitable[object]],
    *args: Any,
    task_status: trio.TaskStatus[Any],
) -> None:
    await function(*args, task_status=task_status)


@define(eq=False)
class _NurseryBlock:
    _inner: AbstractAsyncContextManager[trio.Nursery]

    @enable_ki_protection
    async def __aenter__(self) -> ProtectedNursery:
        return ProtectedNursery(await self._inner.__aenter__())

    @enable_ki_protection
    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(type_, exc, traceback)


def open_nursery() -> AbstractAsyncContextManager[ProtectedNursery]:
    """Open a nursery whose tasks are protected from KeyboardInterrupt."""
    return _NurseryBlock(trio.open_nursery())


def interrupt_safe(
    function: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Protect entering and leaving the context manager that *function* returns.

    A KeyboardInterrupt is raised at one of their checkpoints, or in the block itself.
    """

    @wraps(function)
    def open_block(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _SafeBlock(function(*args, **kwargs))

    return open_block


@define(eq=False)
class _SafeBlock(AbstractAsyncContextManager[T]):
    _inner: AbstractAsyncContextManager[T]

    @enable_ki_protection
    async def __aenter__(self) -> T:
        return await self._inner.__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(type_, exc, traceback)


@define(eq=False)
class Background(Generic[T]):
    """A task that is asked to end instead of being cancelled, and is always awaited.

    ::

        with trio.CancelScope() as block:
            async with Background(run, on_over=block.cancel) as background:
                value = await background.wait_started()

    It is a system task: it keeps running if the task that started it is cancelled or
    interrupted, or abandons the block, as an unfinished async generator does. In the
    last case it is asked to end when `trio.run` ends.
    """

    _run: Callable[[Background[T]], Awaitable[None]]
    """The function to run; calls `started`, and returns soon after `is_ending`."""
    _end: Callable[[T], None]
    """Asks it to end; called once, and not before `started`."""
    _hurry: Callable[[T], None] = field(default=lambda _: None)
    """Called at a second KeyboardInterrupt."""
    _on_over: Callable[[], None] = field(default=lambda: None)
    """Called when it has ended without being asked to."""
    is_ending: bool = field(default=False, init=False)
    """Whether it was asked to end."""
    error: BaseException | None = field(default=None, init=False)
    """The exception that it raised."""
    _values: list[T] = field(factory=list, init=False)
    """The argument of `started`, if it was called."""
    _has_started: trio.Event = field(factory=trio.Event, init=False)
    _is_over: trio.Event = field(factory=trio.Event, init=False)

    def started(self, value: T) -> None:
        """Report that it has started, with a *value* for `wait_started`."""
        self._values.append(value)
        self._has_started.set()
        if self.is_ending:
            self._end(value)

    async def wait_started(self) -> T:
        """Wait for `started`; return its argument.

        Raises:
            BaseException: the exception that the task raised instead.
        """
        await self._has_started.wait()
        if self._values:
            return self._values[0]
        raise self.error or RuntimeError("the task ended before it had started")

    def end(self) -> None:
        """Ask it to end."""
        if not self.is_ending:
            self.is_ending = True
            for value in self._values:
                self._end(value)

    @enable_ki_protection
    async def __aenter__(self) -> Background[T]:
        context = contextvars.copy_context()
        name = "trio_supervisor"
        trio.lowlevel.spawn_system_task(self._own, name=name, context=context)
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        interrupt = _interrupt_in(exc)
        was_interrupted = interrupt is not None
        with trio.CancelScope(shield=True):
            while not self._is_over.is_set():
                try:
                    await self._is_over.wait()
                except KeyboardInterrupt as again:
                    if interrupt is None:
                        interrupt = again
                        continue
                    for value in self._values:
                        self._hurry(value)
        if interrupt is not None and not was_interrupted:
            raise interrupt

    async def _own(self) -> None:
        was_asked = False
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(self._end_with_program)
                with trio.CancelScope(shield=True):
                    await self._try()
                was_asked, self.is_ending = self.is_ending, True
                nursery.cancel_scope.cancel()
        finally:
            self._is_over.set()
            self._has_started.set()
            if not was_asked:
                self._on_over()

    async def _try(self) -> None:
        try:
            await self._run(self)
        except BaseException as exc:  # raised in the task that started it
            self.error = single(exc)

    async def _end_with_program(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.end()


def _interrupt_in(exc: BaseException | None) -> BaseException | None:
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(KeyboardInterrupt)
    return exc if isinstance(exc, KeyboardInterrupt) else None


def single(exc: BaseException) -> BaseException:
    """Return the only error in *exc*, out of any number of nested groups."""
    while isinstance(exc, BaseExceptionGroup):
        cancelled, rest = exc.split(trio.Cancelled)
        exc = exc if cancelled is None or rest is None else rest
        if len(exc.exceptions) > 1:
            return exc
        exc = exc.exceptions[0]
    return exc


def combined(
    error: BaseException | None, failure: BaseException | None
) -> BaseException | None:
    """Return the exception of a block whose body raised *error*, and itself *failure*.

    A failure takes precedence over a cancellation. An exception that ends the program,
    such as KeyboardInterrupt, takes precedence over a failure, which is added as a
    note. Two errors make a group.
    """
    if failure is None or error is failure or _is_cancelled(failure):
        return error or failure
    if error is None or _is_cancelled(error):
        return failure
    if isinstance(error, Exception) and isinstance(failure, Exception):
        return ExceptionGroup("block and background task failed", [error, failure])
    first, second = error, failure
    if isinstance(error, Exception):
        first, second = failure, error
    first.add_note(f"also: {type(second).__name__}: {second}")
    return first


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(single(exc), trio.Cancelled)
