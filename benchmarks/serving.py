"""Run `serve` as a process, observed through its log and its socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import psutil
import trio
from attrs import define, field

from benchmarks.clock import now
from trio_supervisor import Client, open_client
from trio_supervisor.wire.messages import Workers

ROOT: Final = Path(__file__).parents[1]
WORKLOAD: Final = Path(__file__).with_name("workload.py")
LIMIT: Final = 300.0
"""Upper bound on every wait [s]."""

Event: TypeAlias = dict[str, Any]


def command(*words: str) -> list[str]:
    """Return the arguments that run the command line."""
    return [sys.executable, "-m", "trio_supervisor", *words]


def environment(**additions: str) -> dict[str, str]:
    """Return an environment in which this checkout is imported."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **additions}


@define(eq=False)
class Served:
    """A running application; returned by `open_served`."""

    process: trio.Process
    socket: str
    began: float
    """When `serve` was started [ms]."""
    process_ids: dict[str, int] = field(factory=dict, init=False)
    """Process ids of workers and supervisor, by name."""
    _events: list[tuple[float, Event]] = field(factory=list, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)
    _has_ended: bool = field(default=False, init=False)

    @property
    def workers(self) -> list[str]:
        """Names of all workers."""
        return [name for name in self.process_ids if name != "supervisor"]

    def kill(self, name: str) -> None:
        """Kill a worker or the supervisor."""
        os.kill(self.process_ids[name], signal.SIGKILL)

    def mark(self) -> int:
        """Return the current position in the log, for `wait_event`."""
        return len(self._events)

    async def wait_event(
        self, is_wanted: Callable[[Event], bool], since: int = 0
    ) -> float:
        """Return the time of the first wanted event after the mark *since* [ms]."""
        with trio.fail_after(LIMIT):
            while True:
                for moment, event in self._events[since:]:
                    if is_wanted(event):
                        return moment
                since = len(self._events)
                if self._has_ended:
                    raise RuntimeError("serve has ended; see above")
                news = self._news
                await news.wait()

    async def wait_ready(self, name: str, since: int) -> float:
        """Return when *name* became ready [ms]."""
        return await self.wait_event(
            lambda event: event.get("event") == "ready" and event["name"] == name, since
        )

    async def wait_all_ready(self) -> float:
        """Return when the controller first reported all workers ready [ms]."""
        return await self.wait_event(lambda event: event.get("event") == "all_ready")

    async def settle(self, client: Client | None = None) -> None:
        """Wait until all workers are ready and connected."""
        if client is not None:
            await client.call(Workers(wait_ready=True))
            return
        async with open_client(self.socket) as own:
            await own.call(Workers(wait_ready=True))

    async def _read(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            moment = now()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(moment, line)
            self._tell()
        self._has_ended = True
        self._tell()

    def _take(self, moment: float, line: bytes) -> None:
        try:
            event: Event = json.loads(line)
        except ValueError:
            print(line.decode(errors="replace"), file=sys.stderr)
            return
        if event.get("event") == "started":
            self.process_ids[event["name"]] = event["process_id"]
        if event.get("level") == "error":
            print(event["message"], file=sys.stderr)
        self._events.append((moment, event))

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


@asynccontextmanager
async def open_served(count: int, **variables: str) -> AsyncIterator[Served]:
    """Serve *count* workers while the block is open; it is entered immediately.

    Args:
        variables: More environment variables, which `workload` reads.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        socket = os.path.join(directory, "supervisor.ipc")
        words = ["serve", str(WORKLOAD), "--socket", socket, "--log-format", "json"]
        began = now()
        process = await trio.lowlevel.open_process(
            command(*words),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(BENCHMARKS_COUNT=str(count), **variables),
        )
        served = Served(process, socket, began)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served._read)
            try:
                yield served
            finally:
                if process.returncode is None:
                    process.terminate()
                with trio.CancelScope(shield=True), trio.move_on_after(LIMIT):
                    await process.wait()
                nursery.cancel_scope.cancel()


def pin(process_id: int, core: int) -> None:
    """Bind all threads of a process to one core, because placement changes timings."""
    cores = sorted(os.sched_getaffinity(0))
    chosen = {cores[core % len(cores)]}
    for thread in psutil.Process(process_id).threads():
        os.sched_setaffinity(thread.id, chosen)
