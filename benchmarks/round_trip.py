"""Time calls over one connection, against an echo of JSON between two processes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio

from benchmarks.clock import now
from benchmarks.floors import Echo, open_echo
from benchmarks.frame import Frame, Probe
from benchmarks.serving import Served, open_served, pin
from trio_supervisor import Client, open_client

_IN_FLIGHT = 64
_ECHO = "echo of one JSON line"
_ECHOES = "two echoes"
_PIPELINED = "pipelined echo, sends joined"


async def run(frame: Frame) -> None:
    """Measure with 4 and 100 workers; client on one core, supervisor on another."""
    before = os.sched_getaffinity(0)
    try:
        async with open_echo() as echo, open_echo("orjson") as fast_echo:
            for count in (4, frame.options.count(100, quick=6)):
                async with open_served(count) as served:
                    await served.wait_all_ready()
                    await served.settle()
                    _pin_all(served, echo, fast_echo)
                    async with open_client(served.socket) as client:
                        await _measure(frame, echo, fast_echo, client, count)
                os.sched_setaffinity(0, before)
    finally:
        os.sched_setaffinity(0, before)


def _pin_all(served: Served, *echoes: Echo) -> None:
    pin(os.getpid(), 0)
    for echo in echoes:
        pin(echo.process_id, 1)
    pin(served.process_ids["supervisor"], 1)
    pin(served.process_ids["worker.0"], 0)


async def _measure(
    frame: Frame, echo: Echo, fast_echo: Echo, client: Client, count: int
) -> None:
    calls = frame.options.count(200, quick=5)

    async def status() -> None:
        await client.status()

    async def forward() -> None:
        await client.forward("worker.0", "ping")

    async def two_echoes() -> None:
        await echo.round_trip()
        await echo.round_trip()

    one_echo = (_ECHO, _each(echo.round_trip, calls))
    if count == 4:
        both = (_ECHOES, _each(two_echoes, calls))
        await frame.measure(
            "ping", _each(client.ping, calls), unit="µs", floor=one_echo
        )
        await frame.measure(
            "forwarded call", _each(forward, calls), unit="µs", floor=both
        )
        await _measure_pipelined(frame, echo, fast_echo, client)
    name = f"status, {count} workers"
    await frame.measure(name, _each(status, calls), unit="µs", floor=one_echo)


def _each(call: Callable[[], Awaitable[object]], count: int) -> Probe:
    """Return a probe for the mean of *count* sequential calls [µs]."""

    async def measure() -> float:
        began = now()
        for _ in range(count):
            await call()
        return (now() - began) * 1000 / count

    return measure


async def _measure_pipelined(
    frame: Frame, echo: Echo, fast_echo: Echo, client: Client
) -> None:
    count = frame.options.count(6400, quick=640)

    async def caller() -> None:
        for _ in range(count // _IN_FLIGHT):
            await client.ping()

    async def pipelined() -> float:
        began = now()
        async with trio.open_nursery() as nursery:
            for _ in range(_IN_FLIGHT):
                nursery.start_soon(caller)
        return count / (now() - began)

    def floor_of(echo: Echo) -> Probe:
        async def floor() -> float:
            began = now()
            await echo.pipelined(count, _IN_FLIGHT)
            return count / (now() - began)

        return floor

    name, fast = f"pipelined pings, {_IN_FLIGHT} in flight", f"{_PIPELINED}, orjson"
    series = {
        _PIPELINED: floor_of(echo),
        fast: floor_of(fast_echo),
        name: pipelined,
    }
    taken = await frame.take(series)
    frame.add(name, taken, unit="1000/s", floor=_PIPELINED)
    frame.add(fast, taken, unit="1000/s", floor=_PIPELINED)
