"""Iterate over the events and the output of an application, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from trio_supervisor.controller.core import ControllerCore
from trio_supervisor.link.entries import Entries, EntryBatch


@asynccontextmanager
async def open_events(core: ControllerCore, *, follow: bool) -> AsyncIterator[Entries]:
    """See `Controller.events`."""
    with core.event_log.subscribe() as listener:
        past = [EntryBatch(entries=core.event_log.entries)]

        async def receive() -> EntryBatch | None:
            if past:
                return past.pop()
            if not follow:
                return None
            entries, missed = await listener.receive()
            return EntryBatch(entries=entries, missed=missed)

        yield Entries(receive)


@asynccontextmanager
async def open_logs(
    core: ControllerCore, names: Sequence[str], *, tail: int, follow: bool
) -> AsyncIterator[Entries]:
    """See `Controller.logs`."""
    hub = core.captured_output()
    chosen = {child.name for child in core.members.choose(names)} if names else None
    with hub.subscribe(chosen) as subscription:
        past = [EntryBatch(entries=hub.tail(chosen, tail))]

        async def receive() -> EntryBatch | None:
            if past:
                return past.pop()
            batch = await anext(subscription, None) if follow else None
            if batch is None:
                return None
            return EntryBatch(entries=batch.entries, missed=batch.missed)

        yield Entries(receive)
