"""Iterate over the coroutines of all tasks, of trio and asyncio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trio_supervisor.diagnostics.tasks.asyncio_tasks import asyncio_tasks
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.diagnostics.tasks.trio_tasks import walk_trio


def coroutines(main: MainLoop) -> Iterator[Any]:
    """Yield the coroutines of all tasks of *main* except the event loop's own."""
    if main.root is not None:
        for found in walk_trio(main.root):
            if not found.is_system:
                yield found.task.coro
    if main.loop is not None:
        for task in asyncio_tasks(main.loop):
            yield task.get_coro()
