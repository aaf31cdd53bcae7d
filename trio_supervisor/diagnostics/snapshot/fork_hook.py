"""Enter a snapshot from the first fork hook, before hooks of the application run.

After a fork, Python calls the hooks of os.register_at_fork in the child, in order of
registration: those of an application may start threads, or close connections that the
parent still uses. In a snapshot, the hook registered here never returns. So this module
must be imported before the application.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

_entries: Final[dict[int, Callable[[], NoReturn]]] = {}
"""Entry functions of the next child, by ident of the forking thread."""


@contextmanager
def entry_of_child(entry: Callable[[], NoReturn]) -> Iterator[None]:
    """Make a child that this thread forks in the block call *entry* only."""
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
