"""Where code stands, as people say it: ``service.py:12 in work: time.sleep(60)``."""

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
_MACHINERY: Final = ("/trio/_core/", "/anyio/_backends/", "/outcome/")
"""Parts of packages that are in the stack of whatever an event loop runs."""
_TOP: Final = 8
"""Lines of a stack that are told."""
_SOURCE: Final = 80
"""Characters of a line of code that are told."""
_DEEPEST: Final = 60
"""Frames among which the application's is looked for."""
_MOST: Final = 5
"""Places of a crowd that are told."""


class Spot(NamedTuple):
    """A line of code in a function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        place = f"{short_path(self.file)}:{self.line} in {self.function}"
        source = linecache.getline(self.file, self.line).strip()
        return f"{place}: {source:.{_SOURCE}}" if source else place


class Framelike(Protocol):
    """What has a place in the code."""

    @property
    def file(self) -> str:
        """Its path."""

    @property
    def line(self) -> int:
        """Its number."""

    @property
    def function(self) -> str:
        """Its qualified name."""


def innermost_first(frames: Iterable[Framelike]) -> list[Spot]:
    """Return the spots of a report's *frames*, which have the innermost last."""
    return [Spot(f.file, f.line, f.function) for f in frames][::-1]


def is_application(spot: Spot) -> bool:
    """Whether it is neither of Python, nor of an installed package, nor ours."""
    return not spot.file.startswith((*_STANDARD, *_INSTALLED, PREFIX))


def is_package(spot: Spot) -> bool:
    """Whether it is of an installed package, but not a part of an event loop."""
    return spot.file.startswith(_INSTALLED) and not _is_machinery(spot)


def application_spot(spots: Sequence[Spot]) -> Spot | None:
    """Return the innermost of the application; None: there are no *spots* at all.

    One that is installed as a package looks like any other: then it is the innermost
    of any package.
    """
    for one in spots:
        if is_application(one):
            return one
    for one in spots:
        if is_package(one):
            return one
    return spots[0] if spots else None


def stack_lines(spots: Sequence[Spot]) -> tuple[str, ...]:
    """Return *spots* as lines, but for those that run the application, or watch it."""
    while len(spots) > 1 and spots[0].file.startswith(PREFIX):
        spots = spots[1:]
    end = len(spots)
    if any(map(is_application, spots)):
        while not is_application(spots[end - 1]):
            end -= 1
    return tuple(map(str, spots[: min(end, _TOP)]))


def thread_places() -> Counter[Spot]:
    """Return where other threads are, and how many in each place."""
    return Counter(
        spot
        for thread in running_threads()
        if thread.ident != threading.get_ident()
        and (spot := _place(outwards(thread.frame))) is not None
    )


def task_places(main: MainLoop) -> Counter[Spot]:
    """Return where tasks of the event loop are, and how many in each place."""
    return Counter(
        spot
        for coroutine in coroutines(main)
        if (spot := _place(reversed(list(await_frames(coroutine))))) is not None
    )


def main_thread_name(main: MainLoop) -> str:
    """Return the name of the thread of *main*, as `Sampler` gives it."""
    for thread in running_threads():
        if thread.ident == main.thread:
            return thread.name
    return ""


def more_of(before: Counter[Spot], after: Counter[Spot]) -> tuple[str, ...]:
    """Return the places in which there are more than before, as lines."""
    grown = after - before
    return tuple(f"{count} more at {spot}" for spot, count in grown.most_common(_MOST))


def _is_machinery(spot: Spot) -> bool:
    return any(part in spot.file for part in _MACHINERY)


def _place(frames: Iterator[Any]) -> Spot | None:
    return application_spot(
        [
            Spot(
                printable(frame.f_code.co_filename),
                frame.f_lineno or 0,
                frame.f_code.co_qualname,
            )
            for frame in islice(frames, _DEEPEST)
        ]
    )
