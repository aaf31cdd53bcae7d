"""What a snapshot does first, before anything of the application can run in it.

After a fork Python calls in the child what was registered with os.register_at_fork, in
that order: an application's hooks start threads, or say goodbye over connections that
the parent still uses. A snapshot never comes back from the hook that is registered
here. So this module is imported before the application is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

_entries: Final[dict[int, Callable[[], NoReturn]]] = {}
"""What the next child is to do, by the thread that forks it."""


@contextmanager
def entry_of_child(entry: Callable[[], NoReturn]) -> Iterator[None]:
    """Have a child that the calling thread forks in the block do *entry* alone."""
    thread = threading.get_ident()
    _entries[thread] = entry
    try:
        yield
    finally:
        _entries.pop(thread, None)


def _in_child() -> None:
    if (entry := _entries.pop(threading.get_ident(), None)) is not None:
        entry()


os.register_at_fork(after_in_child=_in_child)
