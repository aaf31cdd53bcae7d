"""An application with a worker for each kind of diagnosis, served for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kits.serving import Serving, open_serving

SERVICE = """
import asyncio, ctypes, os, threading, time
import trio
from trio_supervisor import Application, Service, SyncWorker, Worker

CACHE = {}

def cache_stats(prefix: str, limit: int = 3) -> dict[str, int]:
    "How full the cache is."
    return {prefix: len(CACHE), "limit": limit}

async def fails() -> None:
    raise LookupError("not here")

async def leaks(worker: Worker) -> None:
    worker.handle("cache_stats", cache_stats)
    worker.handle("fails", fails)
    await worker.ready()
    number = 0
    while True:
        await trio.sleep(0.01)
        # As little as is found: a look costs the more, the more there is.
        for number in range(number, number + 5):
            CACHE[number] = f"value {number}" * 10

async def tasks(worker: Worker) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(waits)
        await worker.ready()
        while True:
            await trio.sleep(0.1)
            stalls()

async def waits() -> None:
    with trio.move_on_after(1000):
        await trio.sleep_forever()

def stalls() -> None:
    time.sleep(0.7)

async def sleeps() -> None:
    await asyncio.sleep(1000)

async def loops(worker: Worker) -> None:
    task = asyncio.create_task(sleeps(), name="sleeper")
    await worker.ready()
    await asyncio.gather(task)

def plain(worker: SyncWorker) -> None:
    worker.ready()
    place, password = "a local", "hunter2"
    while not worker.stopping.wait(1):
        pass

def holds(worker: SyncWorker) -> None:
    worker.ready()
    c_code()

def c_code() -> None:
    while True:
        ctypes.PyDLL(None).usleep(100_000_000)

async def obeys(worker: Worker) -> None:
    worker.handle("hold", hold)
    worker.handle("nap", nap)
    await worker.ready()
    await trio.sleep_forever()

def hold() -> None:
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)

def early(worker: SyncWorker) -> None:
    worker.ready()
    hold()

def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "had a nap"

application = Application(
    services=[
        Service("leaks", leaks),
        Service("tasks", tasks),
        Service("loops", loops, backend="asyncio"),
        Service("plain", plain, backend="sync", count=2),
        Service("holds", holds, backend="sync", stop_timeout=0.5),
        Service("early", early, backend="sync", stop_timeout=0.5),
        Service("obeys", obeys, health_check_timeout=None, stop_timeout=0.5),
    ],
)
"""


@contextmanager
def open_diagnosed() -> Iterator[Serving]:
    """Serve it; yield when all of its agents that can connect have."""
    with open_serving(SERVICE, is_ready=False) as found:
        found.wait_event(event="all_ready")
        for name in (
            "leaks.0",
            "tasks.0",
            "loops.0",
            "plain.0",
            "plain.1",
            "obeys.0",
        ):
            found.wait_worker(name, connected=True)
        yield found


def text(serving: Serving, *words: str) -> str:
    """Run a verb, check that it succeeds, and return its output."""
    done = serving.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def data(serving: Serving, *words: str) -> Any:
    """Run a verb with ``--json`` and return the parsed output."""
    return json.loads(text(serving, *words, "--json"))
