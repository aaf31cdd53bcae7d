"""Keep recent events for queries and pass new ones to subscribers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import trio
from attrs import define, field

from trio_supervisor.controller.events import Event, event_fields
from trio_supervisor.process.output.entries import timestamp

# What is kept for those that come late, and for one that listens slowly.
_KEPT: Final = 1000
_BATCH: Final = 100

Entry = Mapping[str, Any]


@define(eq=False)
class EventLog:
    """Recent events of one controller, and their subscribers."""

    _entries: deque[Entry] = field(factory=lambda: deque(maxlen=_KEPT), init=False)
    _subscriptions: set[EventSubscription] = field(factory=set, init=False)
    keep: Callable[[Entry, int], None] = field(default=lambda *_: None, init=False)
    """Called with each entry and its level, to keep it on disk."""

    def add(self, event: Event) -> None:
        """Take in *event*."""
        stamp = timestamp(time.time())
        entry = {
            "time": stamp,
            **event_fields(event),
            "message": str(event),
            "level": logging.getLevelName(event.level).lower(),
        }
        self._entries.append(entry)
        self.keep(entry, event.level)
        for subscription in self._subscriptions:
            subscription.offer(entry)

    @property
    def entries(self) -> list[Entry]:
        """What is kept, the oldest first."""
        return list(self._entries)

    def subscribe(self) -> EventSubscription:
        """Return what hears all that happens from now on; a context manager."""
        subscription = EventSubscription(self._subscriptions)
        self._subscriptions.add(subscription)
        return subscription


@define(eq=False)
class EventSubscription:
    """One that listens. It loses the oldest entries if it is too slow."""

    _others: set[EventSubscription]
    _queue: deque[Entry] = field(factory=deque, init=False)
    _missed: int = field(default=0, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._others.discard(self)

    def offer(self, entry: Entry) -> None:
        """Take in *entry*. Never waits."""
        if len(self._queue) >= _KEPT:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(entry)
        self._news.set()

    @property
    def has_entries(self) -> bool:
        """Whether `receive` would return immediately."""
        return bool(self._queue)

    async def receive(self) -> tuple[list[Entry], int]:
        """Wait for entries; return them, and how many were lost before them."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            self._news = trio.Event()
            await self._news.wait()
        count = min(len(self._queue), _BATCH)
        missed, self._missed = self._missed, 0
        return [self._queue.popleft() for _ in range(count)], missed
