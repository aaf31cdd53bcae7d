"""Workers for monitors to watch, without a supervisor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from trio_supervisor.application import MonitorLike


@define(eq=False, kw_only=True)
class FakeMonitoredWorker:
    """A `MonitoredWorker` that does what the test says, and notes what is asked.

    Example::

        async def test_old_workers_are_restarted():
            old = FakeMonitoredWorker(uptime=4000.0)
            await run_monitor(AgeMonitor(), old)
            assert old.reasons == ["older than an hour"]
    """

    name: str = "web.0"
    process_id: int = field(factory=os.getpid)
    """The process whose figures a monitor reads; that of the test by default."""
    connection_id: str = field(default="")
    """Made of its name by default."""
    uptime: float | None = 1000.0
    is_ready: bool = True
    is_managed: bool = True
    state: Mapping[str, Any] = field(factory=dict)
    answers: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    """Answers to calls, by operation; the others are answered by ``{}``."""
    refuses: Exception | None = None
    """What a restart ends in."""
    fails: Exception | None = None
    """What a call ends in."""
    calls: list[tuple[str, dict[str, Any]]] = field(factory=list, init=False)
    """Operations that it was to run, with their arguments."""
    reasons: list[str] = field(factory=list, init=False)
    """Why it was restarted, each time."""

    def __attrs_post_init__(self) -> None:
        self.connection_id = self.connection_id or f"connection of {self.name}"

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Note the call, and answer it from *answers*."""
        await trio.lowlevel.checkpoint()
        self.calls.append((do, arguments))
        if self.fails is not None:
            raise self.fails
        return dict(self.answers.get(do, {}))

    async def restart(self, reason: str) -> None:
        """Note the restart. Afterwards its name is that of its successor."""
        await trio.lowlevel.checkpoint()
        self.reasons.append(reason)
        if self.refuses is not None:
            raise self.refuses
        self.name = f"pid-{self.process_id}"


async def run_monitor(
    monitor: MonitorLike, *workers: FakeMonitoredWorker, times: int = 1
) -> None:
    """Register *workers* with *monitor* and run it, at its interval.

    What it raises is raised here. With `in_virtual_time`, the intervals take no time.

    Args:
        times: Number of runs.
    """
    for worker in workers:
        monitor.register(worker)
    for number in range(times):
        if number:
            await trio.sleep(monitor.interval)
        await monitor.run_once()
