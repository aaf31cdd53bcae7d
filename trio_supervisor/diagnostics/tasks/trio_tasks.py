"""Read trio's tasks, from another thread as they run.

Each use of trio's private API has a fallback with a less detailed report. Properties
with side effects must not be read: ``CancelScope.cancel_called`` cancels a scope whose
deadline has passed, by the clock of the caller's loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from trio_supervisor.diagnostics.stacks.frames import outwards
from trio_supervisor.diagnostics.stacks.stack_table import StackTable
from trio_supervisor.diagnostics.tasks.await_frames import await_frames, is_running
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.wire.reports import Nursery, Scope, Task

_SYSTEM_NURSERIES: Final = 2
"""Nurseries of the root task for system tasks; the third runs the application."""
_MAX_SCOPES: Final = 100
"""Cancel scopes that are read around one task."""


class TrioTask(NamedTuple):
    """A task, its parent nursery, and whether it is a system task."""

    task: Any
    nursery: Any
    is_system: bool


def walk_trio(root: Any) -> Iterator[TrioTask]:
    """Yield *root* and all tasks below it, each parent before its children."""
    todo = [TrioTask(root, None, True)]
    while todo:
        found = todo.pop()
        yield found
        for number, nursery in enumerate(_nurseries(found.task)):
            is_system = found.is_system
            if found.task is root:
                is_system = number < _SYSTEM_NURSERIES
            todo += [
                TrioTask(t, nursery, is_system) for t in reversed(_children(nursery))
            ]


def running_trio_task(main: MainLoop) -> Any:
    """Return the task that is running now; None: none is."""
    if main.root is None:
        return None
    for found in walk_trio(main.root):
        if is_running(found.task.coro):
            return found.task
    return None


class TrioReader:
    """Reads the tasks of one trio loop into a report."""

    def __init__(self, main: MainLoop, stacks: StackTable) -> None:
        self._main = main
        self._stacks = stacks
        self._now = main.clock() if main.clock is not None else None

    def task(self, found: TrioTask) -> Task:
        """Return *found* as data."""
        task, nursery, is_system = found
        frames = list(await_frames(task.coro))
        state = _state(task)
        if is_running(task.coro) and (stack := self._running(task.coro)):
            frames, state = stack, "running"
        scopes = tuple(self._own_scopes(task, nursery))
        return Task(
            id=id(task),
            name=task.name,
            loop="trio",
            state=state,
            stack=self._stacks.add(frames),
            nursery=id(nursery) if nursery is not None else None,
            is_system=is_system,
            is_cancelled=_is_cancelled(task, scopes),
            scopes=scopes,
        )

    def nurseries(self, task: Any) -> list[Nursery]:
        """Return the open nurseries of *task*."""
        return [
            Nursery(
                id=id(nursery), task=id(task), scope=self._scope(nursery.cancel_scope)
            )
            for nursery in _nurseries(task)
        ]

    def _running(self, coroutine: Any) -> list[Any]:
        """Return the frames from *coroutine* inwards, if it is still running."""
        inwards = []
        for frame in outwards(self._main.frame()):
            inwards.append(frame)
            if frame is coroutine.cr_frame:
                return inwards[::-1]
        return []

    def _own_scopes(self, task: Any, nursery: Any) -> Iterator[Scope]:
        """Yield the scopes that *task* itself entered, without its nurseries'."""
        nurseries = {id(n.cancel_scope) for n in _nurseries(task)}
        outer = getattr(nursery, "_cancel_status", None)
        status = getattr(task, "_cancel_status", None)
        entered = list[Scope]()
        while status is not None and status is not outer and len(entered) < _MAX_SCOPES:
            scope = getattr(status, "_scope", None)
            if scope is not None and id(scope) not in nurseries:
                entered.append(self._scope(scope))
            status = getattr(status, "_parent", None)
        for found in reversed(entered):
            if found.deadline is not None or found.is_cancelled or found.is_shielded:
                yield found

    def _scope(self, scope: Any) -> Scope:
        deadline = scope.deadline
        return Scope(
            deadline=None
            if self._now is None or math.isinf(deadline)
            else deadline - self._now,
            is_cancelled=getattr(scope, "_cancel_called", scope.cancelled_caught),
            is_shielded=scope.shield,
        )


def _nurseries(task: Any) -> list[Any]:
    # Copied by C code, atomically under the GIL.
    return list(task.child_nurseries)


def _children(nursery: Any) -> list[Any]:
    # A set has no order: by creation, or by name where that is unknown.
    return sorted(
        nursery.child_tasks, key=lambda task: (getattr(task, "_counter", 0), task.name)
    )


def _state(task: Any) -> str:
    """Return whether a suspended *task* is blocked or runnable."""
    is_waiting = getattr(task, "_abort_func", task) is not None
    return "blocked" if is_waiting else "runnable"


def _is_cancelled(task: Any, scopes: tuple[Scope, ...]) -> bool:
    status = getattr(task, "_cancel_status", None)
    known = getattr(status, "effectively_cancelled", None)
    return bool(any(s.is_cancelled for s in scopes) if known is None else known)
