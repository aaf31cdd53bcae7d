"""Tells once that processes cannot be started, and once that they can again.

A limit that is reached keeps many workers from being started, each again and again.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import (
    Event,
    ProcessStarted,
    ShortageBegan,
    ShortageEnded,
    StartFailed,
)

_NAME = "controller"


@define(eq=False)
class Shortages:
    """Who could not be started for lack of resources of ours."""

    _short: set[str] = field(factory=set, init=False)
    """Those who wait for another attempt."""
    _failures: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)
    """By the clock of trio [s]."""

    def on_event(self, event: Event) -> Iterator[Event]:
        """Return what there is to be said after *event*."""
        match event:
            case StartFailed(is_shortage=True, name=name, problem=problem):
                if not self._short:
                    self._since, self._failures = trio.current_time(), 0
                    yield ShortageBegan(name=_NAME, worker=name, problem=problem)
                self._short.add(name)
                self._failures += 1
            case ProcessStarted(name=name) if name in self._short:
                self._short.discard(name)
                if not self._short:
                    seconds = trio.current_time() - self._since
                    yield ShortageEnded(
                        name=_NAME, failures=self._failures, seconds=seconds
                    )

    def on_change(self, child: Child) -> None:
        """Wait for *child* no more when it is not to be started: nothing is known."""
        if child.is_down or child.is_retired:
            self._short.discard(child.name)
