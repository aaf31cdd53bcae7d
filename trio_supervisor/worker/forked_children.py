"""Let the stop signals end processes that a worker forks.

A handler of Python's is inherited by a fork, and what comes before the child has begun
is lost: Python forgets pending signals then. So `multiprocessing`, which ends daemonic
processes by SIGTERM and waits for them, would wait for ever.
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
    """Have *signals*, where *handler* takes them here, end each forked child.

    From here on, for the life of this process. No signal is lost: in the thread that
    forks they are blocked until the child has their default actions.
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
