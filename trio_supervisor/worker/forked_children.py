"""Restore the default action of stop signals in processes that a worker forks.

A forked child inherits Python's signal handlers, and Python discards signals that are
pending at the fork. `multiprocessing` terminates daemonic processes by SIGTERM and
waits for them: without this module it could wait forever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType


def end_forked_children_by(
    signals: Collection[int], handler: Callable[[int, FrameType | None], object]
) -> None:
    """Let *signals* whose handler is *handler* terminate each forked child.

    This lasts for the life of this process. No signal is lost: the forking thread
    blocks them until the child has reset them to their default actions.
    """
    masks: dict[int, set[signal.Signals | int]] = {}

    def before() -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        masks[threading.get_ident()] = set(mask)

    def restore() -> None:
        if (mask := masks.pop(threading.get_ident(), None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def in_child() -> None:
        for number in signals:
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.SIG_DFL)
        restore()

    os.register_at_fork(before=before, after_in_parent=restore, after_in_child=in_child)
