"""The frames that a suspended coroutine waits in, down to the innermost."""

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
_DEEPEST: Final = 500
"""Frames of one chain that are followed: what recurses endlessly has more."""


def await_frames(coroutine: Any) -> Iterator[FrameType]:
    """Return the frames of *coroutine* and of all that it awaits, innermost last.

    Of one that runs at the moment only its own: what it calls is on its thread's stack.
    """
    for _ in range(_DEEPEST):
        frame, awaited = _step(coroutine)
        if frame is not None:
            yield frame
        if awaited is None:
            return
        coroutine = awaited


def is_running(coroutine: Any) -> bool:
    """Whether a thread runs *coroutine* at the moment."""
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
    # asend(), athrow(), a coroutine's __await__(): written in C, they do not say whom
    # they drive (https://github.com/python/cpython/issues/76991); the collector knows.
    for referent in gc.get_referents(awaitable):
        if any(hasattr(type(referent), frame) for frame, _ in _LINKS):
            return None, referent
    return None, None
