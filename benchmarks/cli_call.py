"""Time CLI commands as whole processes, against an empty Python program."""

from __future__ import annotations

from benchmarks.floors import run_nothing, run_process
from benchmarks.frame import Frame
from benchmarks.serving import command, open_served

_FLOOR = "python -c pass"


async def run(frame: Frame) -> None:
    """Measure ``ping`` and ``status --json`` with 4 workers."""
    async with open_served(4) as served:
        await served.wait_all_ready()
        await served.settle()
        socket = ["--socket", served.socket]
        ping, status = "ping, whole process", "status --json, whole process"
        series = {
            _FLOOR: run_nothing(),
            ping: run_process(*command("ping", *socket)),
            status: run_process(*command("status", "--json", *socket)),
        }
        taken = await frame.take(series)
        frame.add(ping, taken, floor=_FLOOR)
        frame.add(status, taken, floor=_FLOOR)
