"""Measure the minimal cost of forking a trio process: ``python -m benchmarks.forker``.

Single-threaded, with trio imported, the garbage collector frozen, and no event loop.
It reads one request a line, a JSON array of a name and arguments, and answers in JSON.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final

import trio  # noqa: F401 (its pages determine the cost of a fork)

from benchmarks.clock import now

_sleepers: list[int] = []


def fork_to_first_line(count: int = 1) -> float:
    """Return the time from forking to the first line of the last of *count* [ms]."""
    read, write = os.pipe()
    children = []
    began = now()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.write(write, b"%f\n" % now())
            os._exit(0)
        children.append(child)
    os.close(write)
    with open(read, "rb") as file:
        last = max(float(line) for line in file)
    for child in children:
        os.waitpid(child, 0)
    return last - began


def kill_to_notice() -> float:
    """Return the time from SIGKILL to a pidfd that is readable [ms]."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    began = now()
    os.kill(child, signal.SIGKILL)
    poll.poll()
    noticed = now()
    os.waitpid(child, 0)
    os.close(descriptor)
    return noticed - began


def crash_to_first_line() -> float:
    """Return the time to notice a kill and then fork to the first line [ms]."""
    return kill_to_notice() + fork_to_first_line()


def fork_sleepers(count: int) -> list[int]:
    """Return the ids of *count* new processes that sleep until this one ends."""
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.close(0)
            os.close(1)
            signal.pause()
            os._exit(0)
        _sleepers.append(child)
    return _sleepers


_REQUESTS: Final[dict[str, Callable[..., object]]] = {
    "fork": fork_to_first_line,
    "kill": kill_to_notice,
    "crash": crash_to_first_line,
    "sleepers": fork_sleepers,
}


def main() -> None:
    """Answer requests until standard input ends."""
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(_REQUESTS[name](*arguments)), flush=True)
    finally:
        for child in _sleepers:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
