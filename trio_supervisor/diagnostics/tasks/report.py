"""The tasks of the main thread's event loop: a tree, read while it goes on."""

from __future__ import annotations

from typing import Final

from trio_supervisor.diagnostics.stacks.stack_table import StackTable
from trio_supervisor.diagnostics.tasks.asyncio_tasks import AsyncioReader, asyncio_tasks
from trio_supervisor.diagnostics.tasks.main_loop import NO_LOOP, MainLoop
from trio_supervisor.diagnostics.tasks.task_text import format_tasks
from trio_supervisor.diagnostics.tasks.trio_tasks import TrioReader, walk_trio
from trio_supervisor.wire.reports import Nursery, SchedulerReport, Task

_MOST: Final = 15_000
"""Tasks that one report tells: with more of them it would not fit into a message."""


def scheduler_report(main: MainLoop) -> SchedulerReport:
    """Return the tasks of *main*, with what each waits in.

    Any thread may call it. The picture is of no single moment: tasks begin and end
    while it is taken, and one that did either may be missing.
    """
    stacks = StackTable()
    tasks: list[Task] = []
    nurseries: list[Nursery] = []
    omitted = 0
    if main.root is not None:
        reader = TrioReader(main, stacks)
        for found in walk_trio(main.root):
            if len(tasks) < _MOST:
                tasks.append(reader.task(found))
                nurseries += reader.nurseries(found.task)
            else:
                omitted += 1
    if main.loop is not None:
        known = asyncio_tasks(main.loop)
        room = _MOST - len(tasks)
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
