"""Format tasks as a tree: their states, stacks, nurseries and deadlines."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.diagnostics.stacks.text_tree import Node, draw
from trio_supervisor.wire.reports import Frame, Nursery, Scope, Task

_MARKS: Final = {"running": "▶", "runnable": "▷", "blocked": "⏸"}
_LOOPS: Final = ("trio", "anyio", "asyncio", "outcome", "sniffio", "trio_supervisor")
_CALLERS: Final = 6
"""Calling lines shown per task."""


def format_tasks(
    loops: Sequence[str],
    tasks: Sequence[Task],
    nurseries: Sequence[Nursery],
    stacks: Sequence[Sequence[Frame]],
    omitted: int = 0,
) -> str:
    """Return the tree of *tasks*, each with the application's innermost line.

    After the arrow is the library function that the line calls; below are its callers.
    """
    library = _library()
    positions = [_where(stack, library) for stack in stacks]
    lines = []
    for loop in loops:
        own = [task for task in tasks if task.loop == loop]
        lines.append(f"{loop}: {_count(own)}")
        nodes = {task.id: _node(task, *positions[task.stack]) for task in own}
        roots = _trio_roots(own, nurseries, nodes) if loop == "trio" else None
        lines += draw(_asyncio_roots(own, nodes) if roots is None else roots)
    if omitted:
        lines.append(f"... and {omitted} more tasks")
    return "\n".join(lines)


def _count(tasks: Sequence[Task]) -> str:
    states = Counter(task.state for task in tasks)
    found = ", ".join(f"{states[state]} {state}" for state in _MARKS if states[state])
    word = "task" if len(tasks) == 1 else "tasks"
    return f"{len(tasks)} {word}: {found}" if found else "no tasks"


def _trio_roots(
    tasks: Sequence[Task], nurseries: Sequence[Nursery], nodes: Mapping[int, Node]
) -> list[Node]:
    """Return the root nodes, those of the application first, with their subtrees."""
    below = {nursery.id: Node("") for nursery in nurseries}
    own, system = list[Node](), list[Node]()
    root = next((t.id for t in tasks if t.nursery is None), None)
    roots = {nursery.id for nursery in nurseries if nursery.task == root}
    for task in tasks:
        if task.nursery in roots:
            (system if task.is_system else own).append(nodes[task.id])
        elif task.nursery in below:
            below[task.nursery].children.append(nodes[task.id])
    for nursery in nurseries:
        node = below[nursery.id]
        node.text = f"nursery ({len(node.children)}){_scope_marks([nursery.scope])}"
        node.due = nursery.scope.deadline
        if nursery.task in nodes and nursery.task != root:
            nodes[nursery.task].children.append(node)
    return own + system


def _asyncio_roots(tasks: Sequence[Task], nodes: Mapping[int, Node]) -> list[Node]:
    """Return the tasks that no task awaits, each with the tasks that it awaits."""
    by_awaiter = defaultdict[int, list[Task]](list)
    for task in tasks:
        for awaiter in task.awaited_by:
            by_awaiter[awaiter].append(task)
    placed = set[int]()
    roots = []
    # Tasks that await each other in a cycle have no root: the first one becomes it.
    for task in sorted(tasks, key=lambda task: bool(task.awaited_by)):
        if task.id in placed:
            continue
        roots.append(nodes[task.id])
        placed.add(task.id)
        todo = [task]
        while todo:
            current = todo.pop()
            for awaited in by_awaiter[current.id]:
                if awaited.id not in placed:
                    placed.add(awaited.id)
                    nodes[current.id].children.append(nodes[awaited.id])
                    todo.append(awaited)
    return roots


def _node(task: Task, where: str, name: str, outer: tuple[str, ...]) -> Node:
    due = min((s.deadline for s in task.scopes if s.deadline is not None), default=None)
    # trio names a task by module and function, asyncio by a number.
    label = name if _is_default(task, name) else task.name
    marks = " [system]" if task.is_system else ""
    marks += " [cancelled]" if task.is_cancelled else ""
    marks += " [shielded]" if any(s.is_shielded for s in task.scopes) else ""
    text = f"{_MARKS[task.state]} {label}  {where}{marks and ' '}{marks}"
    return Node(text, details=outer, due=due)


def _is_default(task: Task, name: str) -> bool:
    is_path = task.name.endswith(f".{name}") and " " not in task.name
    return is_path or (task.loop == "asyncio" and task.name.startswith("Task-"))


def _scope_marks(scopes: Iterable[Scope]) -> str:
    found = [word for s in scopes if s.is_cancelled for word in ["cancelled"]]
    found += [word for s in scopes if s.is_shielded for word in ["shielded"]]
    return f"  [{', '.join(found)}]" if found else ""


def _where(
    stack: Sequence[Frame], library: tuple[str, ...]
) -> tuple[str, str, tuple[str, ...]]:
    """Return the position of a task, its own function, and the calling lines."""
    if not stack:
        return "not started or finished", "", ()
    own = [i for i, frame in enumerate(stack) if not _is_library(frame.file, library)]
    last = own[-1] if own else len(stack) - 1
    where = _place(stack[last])
    if last + 1 < len(stack):
        where += f"  ⟶ {stack[last + 1].function}"
    outer = [f"↖ {_place(stack[i])}" for i in own[-2::-1]]
    if len(outer) > _CALLERS:
        outer[_CALLERS:] = [f"↖ ... {len(outer) - _CALLERS} more"]
    return where, stack[own[0] if own else 0].function, tuple(outer)


def _place(frame: Frame) -> str:
    name = frame.function.rpartition("<locals>.")[2]
    return f"{short_path(frame.file)}:{frame.line} in {name}"


def _library() -> tuple[str, ...]:
    """Return the directories of the event loops' code."""
    modules = (sys.modules.get(name) for name in _LOOPS)
    paths = [os.path.dirname(m.__file__) for m in modules if m and m.__file__]
    return tuple(os.path.join(path, "") for path in paths)


_STDLIB: Final = os.path.join(sysconfig.get_path("stdlib"), "")


def _is_library(file: str, library: tuple[str, ...]) -> bool:
    if file.startswith((*library, "<frozen ")):
        return True
    return file.startswith(_STDLIB) and "site-packages" not in file
