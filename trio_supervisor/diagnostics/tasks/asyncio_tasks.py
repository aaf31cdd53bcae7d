"""Read asyncio's tasks and which awaits which, from another thread as they run."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, Final

from trio_supervisor.diagnostics.stacks.frames import outwards
from trio_supervisor.diagnostics.stacks.stack_table import StackTable
from trio_supervisor.diagnostics.tasks.await_frames import await_frames, is_running
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.wire.reports import Task

_RETRIES: Final = 100
_MAX_OBJECTS: Final = 60
"""Objects that are followed to find the tasks that await one task."""
_OWNERS: Final = ("asyncio.", "anyio.")
"""Modules of the objects whose attributes are followed: task groups."""
_NOT_FOLLOWED: Final = frozenset({"_loop", "_parent_scope"})
"""Attributes that lead to other tasks: the scope around a group may be another's."""


def asyncio_tasks(loop: Any) -> list[Any]:
    """Return the tasks of *loop* that are not done, in the order of their names."""
    asyncio = sys.modules["asyncio"]
    for _ in range(_RETRIES):
        try:
            return sorted(asyncio.all_tasks(loop), key=_by_number)
        except RuntimeError:  # the loop created or finished a task
            continue
    return []


def running_asyncio_task(main: MainLoop) -> Any:
    """Return the task that is running now; None: none is."""
    if main.loop is None:
        return None
    return sys.modules["asyncio"].current_task(main.loop)


class AsyncioReader:
    """Reads the tasks of one asyncio loop into a report."""

    def __init__(self, main: MainLoop, stacks: StackTable) -> None:
        self._main = main
        self._stacks = stacks
        self._running = running_asyncio_task(main)

    def read(self, tasks: list[Any]) -> list[Task]:
        """Return *tasks* as data."""
        waiting = {
            id(future): task
            for task in tasks
            if (future := _awaited_future(task)) is not None
        }
        return [self._task(task, waiting) for task in tasks]

    def _task(self, task: Any, waiting: Mapping[int, Any]) -> Task:
        coroutine = task.get_coro()
        frames = list(await_frames(coroutine))
        state = "blocked" if _awaited_future(task) is not None else "runnable"
        if task is self._running and (stack := self._running_frames(coroutine)):
            frames, state = stack, "running"
        awaiters = {id(found): found for found in _awaiters(task, waiting)}
        return Task(
            id=id(task),
            name=str(task.get_name()),
            loop="asyncio",
            state=state,
            stack=self._stacks.add(frames),
            awaited_by=tuple(awaiters),
            is_cancelled=task.cancelling() > 0,
        )

    def _running_frames(self, coroutine: Any) -> list[Any]:
        inwards = []
        if is_running(coroutine):
            for frame in outwards(self._main.frame()):
                inwards.append(frame)
                if frame is coroutine.cr_frame:
                    return inwards[::-1]
        return []


def _by_number(task: Any) -> tuple[int, int, str]:
    name = str(task.get_name())
    number = name.removeprefix("Task-")
    return (0, int(number), "") if number.isdecimal() else (1, 0, name)


def _awaited_future(task: Any) -> Any:
    """Return the future that *task* is suspended in; None: it is runnable."""
    if hasattr(task, "_fut_waiter"):
        return task._fut_waiter
    # Without it: the future that the innermost frame awaits, among its referents.
    awaited = task.get_coro()
    while (inner := getattr(awaited, "cr_await", None)) is not None:
        awaited = inner
    found = (r for r in gc.get_referents(awaited) if _is_future(r))
    return next(found, None)


def _awaiters(task: Any, waiting: Mapping[int, Any]) -> Iterator[Any]:
    """Yield the tasks that await *task*: directly, or by gather, wait, a task group.

    A task that awaits another has registered a callback there. A few references lead
    from it to the future that the waiting task is suspended in, or, from a task group,
    to the group's owner.
    """
    if (direct := waiting.get(id(task))) is not None:
        yield direct
    todo = [entry[0] for entry in getattr(task, "_callbacks", None) or ()]
    seen = {id(task)}
    while todo and len(seen) < _MAX_OBJECTS:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if _is_future(thing):
            if (waiter := waiting.get(id(thing))) is not None:
                yield waiter
            elif hasattr(thing, "get_coro"):
                yield thing  # the owner of a task group, busy in its body
            else:
                todo += [entry[0] for entry in getattr(thing, "_callbacks", None) or ()]
            continue
        todo += _referents(thing)


def _referents(thing: Any) -> list[Any]:
    if type(thing) is FunctionType:
        return [
            cell.cell_contents for cell in thing.__closure__ or () if _is_full(cell)
        ]
    if type(thing) is partial:
        return [thing.func, *thing.args]
    if type(thing) in (MethodType, BuiltinMethodType):
        return [thing.__self__]
    if type(thing).__module__.startswith(_OWNERS):
        # A copy, made in C: the loop keeps setting attributes.
        found = dict(getattr(thing, "__dict__", ())) or _slots(thing)
        return [value for name, value in found.items() if name not in _NOT_FOLLOWED]
    return []


def _slots(thing: Any) -> dict[str, Any]:
    names = getattr(type(thing), "__slots__", ())
    return {name: getattr(thing, name, None) for name in names}


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _is_future(thing: Any) -> bool:
    return hasattr(type(thing), "_asyncio_future_blocking")
