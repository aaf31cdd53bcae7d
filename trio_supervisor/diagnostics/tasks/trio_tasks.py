"""trio's tasks, read from another thread while they go on.

Whatever is not trio's public API has a fallback: without it a report says less. Nothing
of it may be called that acts: ``CancelScope.cancel_called`` cancels a scope whose
deadline has passed, by the clock of the loop that the caller is in.
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
"""Of the root task's; trio runs the application in the third."""
_MANY: Final = 100
"""Scopes around one task that are looked at."""


class Found(NamedTuple):
    """A task, the nursery that it is in, and whether it is trio's own."""

    task: Any
    nursery: Any
    is_system: bool


def walk_trio(root: Any) -> Iterator[Found]:
    """Return *root* and all tasks below it, every parent before its children."""
    todo = [Found(root, None, True)]
    while todo:
        found = todo.pop()
        yield found
        for number, nursery in enumerate(_nurseries(found.task)):
            is_system = found.is_system
            if found.task is root:
                is_system = number < _SYSTEM_NURSERIES
            todo += [Found(t, nursery, is_system) for t in reversed(_children(nursery))]


def running_trio_task(main: MainLoop) -> Any:
    """Return the task that runs at the moment; None: none does."""
    if main.root is None:
        return None
    for found in walk_trio(main.root):
        if is_running(found.task.coro):
            return found.task
    return None


class TrioReader:
    """Reads the tasks of one loop into a report's parts."""

    def __init__(self, main: MainLoop, stacks: StackTable) -> None:
        self._main = main
        self._stacks = stacks
        self._now = main.clock() if main.clock is not None else None

    def task(self, found: Found) -> Task:
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
        """Return the nurseries that *task* has open."""
        return [
            Nursery(
                id=id(nursery), task=id(task), scope=self._scope(nursery.cancel_scope)
            )
            for nursery in _nurseries(task)
        ]

    def _running(self, coroutine: Any) -> list[Any]:
        """The frames from *coroutine* inwards, if its thread is still in there."""
        inwards = []
        for frame in outwards(self._main.frame()):
            inwards.append(frame)
            if frame is coroutine.cr_frame:
                return inwards[::-1]
        return []

    def _own_scopes(self, task: Any, nursery: Any) -> Iterator[Scope]:
        """The scopes that *task* itself entered, but for those of its nurseries."""
        nurseries = {id(n.cancel_scope) for n in _nurseries(task)}
        outer = getattr(nursery, "_cancel_status", None)
        status = getattr(task, "_cancel_status", None)
        entered = list[Scope]()
        while status is not None and status is not outer and len(entered) < _MANY:
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
    # Copied in C, which no other thread interrupts.
    return list(task.child_nurseries)


def _children(nursery: Any) -> list[Any]:
    # A set has no order: as they were made, or by name where that is not known.
    return sorted(
        nursery.child_tasks, key=lambda task: (getattr(task, "_counter", 0), task.name)
    )


def _state(task: Any) -> str:
    """Whether a suspended *task* waits for something or for its turn."""
    is_waiting = getattr(task, "_abort_func", task) is not None
    return "blocked" if is_waiting else "runnable"


def _is_cancelled(task: Any, scopes: tuple[Scope, ...]) -> bool:
    status = getattr(task, "_cancel_status", None)
    known = getattr(status, "effectively_cancelled", None)
    return bool(any(s.is_cancelled for s in scopes) if known is None else known)
