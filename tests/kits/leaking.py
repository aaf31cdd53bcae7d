"""A program that leaks in every way it can, and has a thread take a memory sample.

``python -m tests.kits.leaking trio|asyncio|threads [frozen|collecting]``: prints the
report as JSON. The lines that leak have a name in a comment, as ``# CLOSURE``.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import orjson
import trio
from attrs import define

from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling
from trio_supervisor.wire.codec import to_fields

COUNT = 500
"""How many are leaked of each."""
GROWN = 500_000
"""The size of one string that grows, where there is one [bytes]."""
TIME_BOX = 60.0

Work = Callable[[], None]


def payload(kind: str, number: int, size: int) -> bytes:
    """A leaf, which the collector does not track."""
    return f"{kind} {number} ".encode().ljust(size, b".")


class Session:
    """Leaked as instances."""

    def __init__(self, number: int) -> None:
        self.data = payload("instance", number, 5100)


@define
class Cell:
    """Leaked as instances with slots."""

    number: int


BY_KEY: dict[str, list[bytes]] = {}  # MODULE DICT
LEAVES: dict[str, bytes] = {}  # UNTRACKED DICT
SESSIONS: list[Session] = []  # INSTANCES
CELLS = [Cell(-1)]  # SLOTS
DOOMED: list[Any] = []


@functools.cache  # LRU CACHE
def cached(number: int) -> bytes:
    return payload("lru_cache", number, 4100)


def make_handler() -> Callable[[int], None]:
    seen = []

    def handle(number: int) -> None:  # CLOSURE
        seen.append(payload("closure", number, 3100))

    return handle


HANDLE = make_handler()


class Registry:
    """Leaks in an attribute of its own."""

    entries: dict[int, bytes] = {}  # noqa: RUF012  # a leak of many a program


def leak() -> None:
    """Leak everything, after many of the same kinds have died."""
    DOOMED.clear()
    for number in range(COUNT):
        BY_KEY[f"key {number}"] = [payload("dict", number, 9100)]
        LEAVES[f"leaf {number}"] = payload("leaves", number, 8100)
        SESSIONS.append(Session(number))
        CELLS.append(Cell(number))
        cached(number)
        HANDLE(number)
        Registry.entries[number] = payload("class", number, 2100)


def prepare() -> None:
    """Have what dies in the period, so that addresses are used again."""
    for number in range(2_000):
        sizes = (9100, 8100, 5100, 4100, 3100, 2100)
        DOOMED.extend(payload("doomed", number, size) for size in sizes)
        DOOMED.extend([[payload("doomed", number, 7100)], Cell(number)])


def sample(leak_all: Work) -> None:
    """Sample in a thread while the main thread leaks."""
    try:
        frozen = gc.get_freeze_count()
        before = (gc.isenabled(), gc.get_threshold())
        sampling = MemorySampling.start(TIME_BOX)
        leak_all()
        report = sampling.finish(TIME_BOX)
        after = (gc.isenabled(), gc.get_threshold())
        fields = to_fields(report)
        fields["was_frozen"], fields["is_frozen"] = frozen, gc.get_freeze_count()
        fields["same_collector"] = before == after
        sys.stdout.buffer.write(orjson.dumps(fields))
        sys.stdout.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


async def serve_trio() -> None:
    send, receive = trio.open_memory_channel[int](0)
    hoard, _unread = trio.open_memory_channel[bytes](10_000)
    kept = trio.Semaphore(0)

    async def keep() -> None:
        mine = []
        async for number in receive:  # TASK
            mine.append(payload("task", number, 7100))
            kept.release()

    async def fill() -> None:  # CHANNEL
        for number in range(COUNT):
            await send.send(number)
            hoard.send_nowait(payload("channel", number, 6100))
            await kept.acquire()
        leak()

    token = trio.lowlevel.current_trio_token()
    start_sampling(lambda: trio.from_thread.run(fill, trio_token=token))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)


async def serve_asyncio() -> None:
    numbers: asyncio.Queue[int] = asyncio.Queue(1)

    async def keep() -> None:
        mine = []
        while True:
            mine.append(payload("task", await numbers.get(), 7100))  # TASK
            numbers.task_done()

    async def fill() -> None:
        for number in range(COUNT):
            await numbers.put(number)
        await numbers.join()
        leak()

    loop = asyncio.get_running_loop()
    keeping = asyncio.create_task(keep())
    start_sampling(lambda: asyncio.run_coroutine_threadsafe(fill(), loop).result())
    await keeping


def serve_threads() -> None:
    asked: queue.Queue[Callable[[], bytes]] = queue.Queue()
    done = threading.Event()

    def leak_all() -> bytes:
        mine.extend(payload("task", number, 7100) for number in range(COUNT))
        leak()
        return payload("growing", 1, GROWN)

    def ask() -> None:
        asked.put(leak_all)
        done.wait()

    mine: list[bytes] = []
    growing = b""
    start_sampling(ask)
    while True:  # its frame runs: the collector sees neither "mine" nor "growing"
        growing += asked.get()()
        done.set()


def start_sampling(leak_all: Work) -> None:
    """Start the thread that samples, in place of the agent's."""

    def leak_and_collect() -> None:
        leak_all()
        if "collecting" in sys.argv:
            gc.collect()

    threading.Thread(target=sample, args=[leak_and_collect], daemon=True).start()


def main() -> None:
    prepare()
    if len(sys.argv) > 2:
        gc.collect()
        gc.freeze()
        if pid := os.fork():  # as a fork server does
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    match sys.argv[1]:
        case "trio":
            trio.run(serve_trio)
        case "asyncio":
            asyncio.run(serve_asyncio())
        case _:
            serve_threads()


if __name__ == "__main__":
    main()
