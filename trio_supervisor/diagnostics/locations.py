"""Describe lines of code for people: ``service.py:12 in work: time.sleep(60)``."""

from __future__ import annotations

import linecache
import os
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from trio_supervisor._location import PREFIX
from trio_supervisor.diagnostics.stacks.frames import (
    outwards,
    printable,
    running_threads,
    short_path,
)
from trio_supervisor.diagnostics.tasks.await_frames import await_frames
from trio_supervisor.diagnostics.tasks.coroutines import coroutines
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop

_STANDARD: Final = (os.path.join(sysconfig.get_path("stdlib"), ""), "<frozen ")
_INSTALLED: Final = tuple(
    os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "platlib")
)
_EVENT_LOOP_CODE: Final = ("/trio/_core/", "/anyio/_backends/", "/outcome/")
"""Parts of packages that are in the stack of every task of an event loop."""
_STACK_LINES: Final = 8
"""Lines shown of a stack."""
_SOURCE_LENGTH: Final = 80
"""Characters shown of a line of source code."""
_MAX_FRAMES: Final = 60
"""Frames that are searched for one of the application."""
_MAX_GROWN: Final = 5
"""Locations shown at which more threads or tasks wait than before."""


class CodeLocation(NamedTuple):
    """A line of code in a function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        location = f"{short_path(self.file)}:{self.line} in {self.function}"
        source = linecache.getline(self.file, self.line).strip()
        return f"{location}: {source:.{_SOURCE_LENGTH}}" if source else location


class FrameLike(Protocol):
    """A frame of a report: something with a file, a line and a function."""

    @property
    def file(self) -> str:
        """Path of the file."""

    @property
    def line(self) -> int:
        """Line number."""

    @property
    def function(self) -> str:
        """Qualified name of the function."""


def innermost_first(frames: Iterable[FrameLike]) -> list[CodeLocation]:
    """Return the locations of *frames*, which a report lists innermost last."""
    return [CodeLocation(f.file, f.line, f.function) for f in frames][::-1]


def is_application(location: CodeLocation) -> bool:
    """Return whether it is not in the standard library, a package or this one."""
    return not location.file.startswith((*_STANDARD, *_INSTALLED, PREFIX))


def is_package(location: CodeLocation) -> bool:
    """Return whether it is in an installed package that is not an event loop."""
    return location.file.startswith(_INSTALLED) and not _is_event_loop_code(location)


def application_location(locations: Sequence[CodeLocation]) -> CodeLocation | None:
    """Return the innermost location of the application; None: *locations* is empty.

    An application that is installed as a package cannot be told from a library: then
    return the innermost location in any package.
    """
    for one in locations:
        if is_application(one):
            return one
    for one in locations:
        if is_package(one):
            return one
    return locations[0] if locations else None


def stack_lines(locations: Sequence[CodeLocation]) -> tuple[str, ...]:
    """Return *locations* as lines, without frames outside of the application."""
    while len(locations) > 1 and locations[0].file.startswith(PREFIX):
        locations = locations[1:]
    end = len(locations)
    if any(map(is_application, locations)):
        while not is_application(locations[end - 1]):
            end -= 1
    return tuple(map(str, locations[: min(end, _STACK_LINES)]))


def thread_locations() -> Counter[CodeLocation]:
    """Return the locations of all other threads, and how many are at each."""
    return Counter(
        location
        for thread in running_threads()
        if thread.ident != threading.get_ident()
        and (location := _location(outwards(thread.frame))) is not None
    )


def task_locations(main: MainLoop) -> Counter[CodeLocation]:
    """Return the locations of the event loop's tasks, and how many are at each."""
    return Counter(
        location
        for coroutine in coroutines(main)
        if (location := _location(reversed(list(await_frames(coroutine))))) is not None
    )


def main_thread_name(main: MainLoop) -> str:
    """Return the name of the thread that runs *main*, as `Sampler` reports it."""
    for thread in running_threads():
        if thread.ident == main.thread:
            return thread.name
    return ""


def grown_locations(
    before: Counter[CodeLocation], after: Counter[CodeLocation]
) -> tuple[str, ...]:
    """Return the locations at which there are more than before, as lines."""
    grown = after - before
    return tuple(
        f"{count} more at {location}"
        for location, count in grown.most_common(_MAX_GROWN)
    )


def _is_event_loop_code(location: CodeLocation) -> bool:
    return any(part in location.file for part in _EVENT_LOOP_CODE)


def _location(frames: Iterator[Any]) -> CodeLocation | None:
    return application_location(
        [
            CodeLocation(
                printable(frame.f_code.co_filename),
                frame.f_lineno or 0,
                frame.f_code.co_qualname,
            )
            for frame in islice(frames, _MAX_FRAMES)
        ]
    )
