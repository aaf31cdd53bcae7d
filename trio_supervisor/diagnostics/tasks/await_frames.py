"""Walk the frames of a suspended coroutine, down to the innermost await."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

_LINKS: Final = (
    ("cr_frame", "cr_await"),
    ("gi_frame", "gi_yieldfrom"),
    ("ag_frame", "ag_await"),
)
_MAX_FRAMES: Final = 500
"""Frames that are followed: endless recursion has more."""


def await_frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of *coroutine* and of what it awaits, innermost last.

    Of a running coroutine, only its own: what it calls is on its thread's stack.
    """
    for _ in range(_MAX_FRAMES):
        frame, awaited = _step(coroutine)
        if frame is not None:
            yield frame
        if awaited is None:
            return
        coroutine = awaited


def is_running(coroutine: Any) -> bool:
    """Return whether a thread is running *coroutine* now."""
    return bool(
        getattr(coroutine, "cr_running", False)
        or getattr(coroutine, "gi_running", False)
    )


def _step(awaitable: Any) -> tuple[FrameType | None, object]:
    for frame, link in _LINKS:
        if hasattr(type(awaitable), frame):
            return getattr(awaitable, frame), getattr(awaitable, link, None)
    if type(awaitable).__module__ not in ("builtins", "types"):
        return None, None
    # asend(), athrow() and a coroutine's __await__() are written in C and do not expose
    # what they drive (https://github.com/python/cpython/issues/76991); gc does.
    for referent in gc.get_referents(awaitable):
        if any(hasattr(type(referent), frame) for frame, _ in _LINKS):
            return None, referent
    return None, None
