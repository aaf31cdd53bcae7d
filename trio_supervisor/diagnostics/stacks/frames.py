"""Read the current frames of all threads."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Final, NamedTuple

from attrs import frozen

from trio_supervisor._location import PREFIX
from trio_supervisor.wire.reports import Frame

_BOOT: Final = (PREFIX, "<frozen runpy>")
_PACKAGE_DIRECTORIES: Final = tuple(
    os.path.join(sysconfig.get_path(name), "")
    for name in ("purelib", "platlib", "stdlib")
)


class FramePosition(NamedTuple):
    """The position of a frame at one moment."""

    code: CodeType
    line: int
    frame: FrameType


@frozen(kw_only=True)
class RunningThread:
    """A thread and its innermost frame, which changes while the thread runs."""

    ident: int
    name: str
    native_id: int | None
    is_daemon: bool
    is_main: bool
    frame: FrameType


def running_threads() -> list[RunningThread]:
    """Return all threads that run Python code, the main thread first, then by name.

    Frames of the calling thread that belong to this package are left out.
    """
    known = _known_threads()
    main = threading.main_thread().ident
    threads = []
    for ident, frame in sys._current_frames().items():
        thread = known.get(ident)
        threads.append(
            RunningThread(
                ident=ident,
                name=thread.name if thread else f"thread {ident}",
                native_id=native_id(thread),
                is_daemon=bool(thread and thread.daemon),
                is_main=ident == main,
                frame=_skip_own(frame) if ident == threading.get_ident() else frame,
            )
        )
    threads.sort(key=lambda thread: (not thread.is_main, thread.name))
    return threads


def native_id(thread: threading.Thread | None) -> int | None:
    """Return the native id of *thread*; None: unknown."""
    if thread is threading.main_thread() and sys.platform == "linux":
        # Equal to the pid. In a forked child, Python still returns the parent's.
        return os.getpid()
    return thread.native_id if thread else None


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame*, its caller, the caller's caller and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def stack_of(frame: FrameType | None) -> list[FramePosition]:
    """Return the positions of *frame* and its callers, the innermost first.

    Call it before anything that may block, such as reading source files: the stack of
    another thread keeps changing.
    """
    return [FramePosition(f.f_code, f.f_lineno or 0, f) for f in outwards(frame)]


def trim(positions: list[FramePosition]) -> list[FramePosition]:
    """Return *positions* without the outermost ones, which start this process."""
    end = len(positions)
    while end > 1 and positions[end - 1].code.co_filename.startswith(_BOOT):
        end -= 1
    return positions[:end]


def as_frame(position: FramePosition, *, with_source: bool = True) -> Frame:
    """Return *position* as a `Frame` of a report."""
    code, line, _ = position
    source = linecache.getline(code.co_filename, line).strip() if with_source else ""
    return Frame(
        file=printable(code.co_filename),
        line=line,
        function=code.co_qualname,
        source=source,
    )


def printable(path: str) -> str:
    """Return *path* with undecodable bytes replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def short_path(path: str) -> str:
    """Return *path* relative to the current or a package directory, if inside one."""
    for directory in (*_PACKAGE_DIRECTORIES, _working_directory()):
        if path.startswith(directory):
            return path[len(directory) :]
    return path


def _working_directory() -> str:
    try:
        return os.path.join(os.getcwd(), "")
    except OSError:  # it was removed
        return os.sep


def _known_threads() -> dict[int | None, threading.Thread]:
    # enumerate() acquires a lock, and this process may be deadlocked.
    active = getattr(threading, "_active", None)
    if type(active) is dict:
        return dict(active)
    return {thread.ident: thread for thread in threading.enumerate()}


def _skip_own(frame: FrameType) -> FrameType:
    for outer in outwards(frame):
        if not outer.f_code.co_filename.startswith(PREFIX):
            return outer
    return frame
