"""Parse the stacks of another process, and find the thread that holds the GIL."""

from __future__ import annotations

import os
import re
from typing import Final

from attrs import field, frozen

from trio_supervisor._location import PACKAGE
from trio_supervisor.diagnostics.locations import CodeLocation

_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.+)')
_TITLE: Final = re.compile(r"(Main thread|Thread) \d+, (?P<state>.+) \(most recent .*")
_AGENT: Final = os.path.join(PACKAGE, "worker", "agent.py")
_BEGINS: Final = ("/threading.py", "_bootstrap")
"""The outermost frame of every thread except the main one."""
_WAITING: Final = (
    *("/threading.py", "/queue.py", "/selectors.py", "/socket.py", "/ssl.py"),
    *("/subprocess.py", "/asyncio/runners.py", "/concurrent/futures/thread.py"),
    *("/trio/_core/_io_epoll.py", "/trio/_core/_thread_cache.py"),
)
"""Files whose blocking C calls release the GIL."""


@frozen(kw_only=True)
class FaultStack:
    """The stack of one thread, innermost location first."""

    locations: tuple[CodeLocation, ...]
    state: str = field(default="", eq=False)
    """The kernel's state, such as ``sleeping in futex``; empty: unknown."""

    @property
    def is_main(self) -> bool:
        """Whether it is the main thread."""
        last = self.locations[-1]
        return not (last.file.endswith(_BEGINS[0]) and last.function == _BEGINS[1])

    @property
    def is_agent(self) -> bool:
        """Whether it is the agent's thread."""
        return not self.is_main and any(
            location.file == _AGENT for location in self.locations
        )

    @property
    def is_waiting(self) -> bool:
        """Whether it waits in a call that releases the GIL."""
        return self.locations[0].file.endswith(_WAITING)


def parse_stacks(text: str) -> tuple[FaultStack, ...]:
    """Return the stacks in the output of faulthandler or of an inspection."""
    stacks: list[tuple[str, list[CodeLocation]]] = []
    is_within, state = False, ""
    for line in text.splitlines():
        if (match := _FRAME.fullmatch(line)) is None:
            title = _TITLE.fullmatch(line)
            is_within, state = False, title["state"] if title else ""
            continue
        if not is_within:
            stacks.append((state, []))
        is_within = True
        stacks[-1][1].append(
            CodeLocation(match["file"], int(match["line"]), match["name"])
        )
    return tuple(
        FaultStack(locations=tuple(locations), state=one) for one, locations in stacks
    )


def gil_holder(text: str) -> FaultStack | None:
    """Return the thread that holds the GIL; None: no thread may.

    That is a thread in no call that releases the GIL, the main thread before others.

    Args:
        text: The stacks of a process in which no thread makes progress.
    """
    stacks = [s for s in parse_stacks(text) if not s.is_agent and not s.is_waiting]
    stacks.sort(key=lambda stack: not stack.is_main)
    return stacks[0] if stacks else None
