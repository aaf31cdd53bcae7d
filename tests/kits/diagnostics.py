"""What the tests of this room share: other threads, and asking until it is so."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from trio_supervisor.diagnostics.stacks.instructions import current_call

T = TypeVar("T")
PATIENCE = 30.0
"""After which what a test waits for will not happen any more [s]."""
_WAITS: Final = ("acquire", "join")


def from_another_thread(look: Callable[[], T]) -> T:
    """Return what *look* sees while the calling thread waits right here."""
    found: list[T] = []
    caller = threading.get_ident()

    def look_once_it_waits() -> None:
        while not _joins(caller):
            threading.Event().wait(0.001)
        found.append(look())

    thread = threading.Thread(target=look_once_it_waits, name="looker")
    thread.start()
    thread.join(PATIENCE)
    return found[0]


def _joins(ident: int) -> bool:
    """Whether a thread has come as far as to wait for another one's end."""
    frame = sys._current_frames()[ident]
    call = current_call(frame)
    names = ("join", "_wait_for_tstate_lock")
    return frame.f_code.co_name in names and call is not None and call[0] in _WAITS


def look_until(look: Callable[[], T], is_so: Callable[[T], Any]) -> T:
    """Return what *look* sees once *is_so* says that it is that."""
    end = time.monotonic() + PATIENCE
    while True:
        found = look()
        if is_so(found):
            return found
        assert time.monotonic() < end, found
        threading.Event().wait(0.001)  # others are to get on


@contextmanager
def threads(**targets: Callable[[], object]) -> Iterator[None]:
    """Run daemon threads of these names; they must be able to end at the end."""
    running = [
        threading.Thread(target=target, name=name, daemon=True)
        for name, target in targets.items()
    ]
    for thread in running:
        thread.start()
    yield
    for thread in running:
        thread.join(PATIENCE)
        assert not thread.is_alive()
