"""Report the tasks of the main thread's event loop as a tree, while it runs."""

from __future__ import annotations

from typing import Final

from trio_supervisor.diagnostics.stacks.stack_table import StackTable
from trio_supervisor.diagnostics.tasks.asyncio_tasks import AsyncioReader, asyncio_tasks
from trio_supervisor.diagnostics.tasks.main_loop import NO_LOOP, MainLoop
from trio_supervisor.diagnostics.tasks.task_text import format_tasks
from trio_supervisor.diagnostics.tasks.trio_tasks import TrioReader, walk_trio
from trio_supervisor.wire.reports import Nursery, SchedulerReport, Task

_MAX_TASKS: Final = 15_000
"""Tasks in one report: more would not fit into one message."""


def scheduler_report(main: MainLoop) -> SchedulerReport:
    """Return the tasks of *main*, with the stack of each.

    Any thread may call it. The report is not atomic: a task that starts or finishes
    while it is taken may be missing.
    """
    stacks = StackTable()
    tasks: list[Task] = []
    nurseries: list[Nursery] = []
    omitted = 0
    if main.root is not None:
        reader = TrioReader(main, stacks)
        for found in walk_trio(main.root):
            if len(tasks) < _MAX_TASKS:
                tasks.append(reader.task(found))
                nurseries += reader.nurseries(found.task)
            else:
                omitted += 1
    if main.loop is not None:
        known = asyncio_tasks(main.loop)
        room = _MAX_TASKS - len(tasks)
        tasks += AsyncioReader(main, stacks).read(known[:room])
        omitted += max(0, len(known) - room)
    return SchedulerReport(
        data=format_tasks(main.names, tasks, nurseries, stacks.stacks, omitted)
        if main.names
        else NO_LOOP,
        loops=main.names,
        tasks=tuple(tasks),
        nurseries=tuple(nurseries),
        stacks=tuple(stacks.stacks),
        omitted=omitted,
    )
