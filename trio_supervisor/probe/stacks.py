"""The stacks of this process's threads."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from types import FrameType
from typing import Final

from trio_supervisor.wire.messages import Frame, ThreadReport, ThreadStack

_OWN: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


def thread_report() -> ThreadReport:
    """Return the stacks of all threads, the main thread first.

    Any thread may call it; its own frames that belong to the taking of this report are
    left out, and so are the outermost ones that tell how the process was started.
    """
    named = {thread.ident: thread for thread in threading.enumerate()}
    main = threading.main_thread().ident
    threads = [
        _stack_of(ident, frame, named.get(ident), is_main=ident == main)
        for ident, frame in sys._current_frames().items()
    ]
    threads.sort(key=lambda thread: (not thread.is_main, thread.name))
    return ThreadReport(data=format_threads(threads), threads=tuple(threads))


def format_threads(threads: list[ThreadStack]) -> str:
    """Return stacks as text, the innermost frame last as in a traceback."""
    lines = []
    for thread in threads:
        marks = [f"ident {thread.ident}"]
        marks += ["main"] if thread.is_main else []
        marks += ["daemon"] if thread.is_daemon else []
        lines.append(f"Thread {thread.name} ({', '.join(marks)})")
        for frame in thread.frames:
            lines.append(f"  {frame.file}:{frame.line} in {frame.function}")
            if frame.source:
                lines.append(f"    {frame.source}")
    return "\n".join(lines)


def _stack_of(
    ident: int, frame: FrameType, thread: threading.Thread | None, *, is_main: bool
) -> ThreadStack:
    frames = []
    innermost: FrameType | None = frame
    if ident == threading.get_ident():
        while innermost is not None and innermost.f_code.co_filename.startswith(_OWN):
            innermost = innermost.f_back
    while innermost is not None:
        frames.append(_frame_of(innermost))
        innermost = innermost.f_back
    while len(frames) > 1 and _is_boot(frames[-1]):
        frames.pop()
    return ThreadStack(
        name=thread.name if thread else f"thread {ident}",
        ident=ident,
        is_daemon=bool(thread and thread.daemon),
        is_main=is_main,
        frames=tuple(reversed(frames)),
    )


def _is_boot(frame: Frame) -> bool:
    """Whether an outermost frame only tells how this process was started."""
    return frame.file.startswith((_OWN, "<frozen runpy>"))


def _frame_of(frame: FrameType) -> Frame:
    file = frame.f_code.co_filename
    return Frame(
        file=file,
        line=frame.f_lineno or 0,
        function=frame.f_code.co_qualname,
        source=linecache.getline(file, frame.f_lineno or 0).strip(),
    )
