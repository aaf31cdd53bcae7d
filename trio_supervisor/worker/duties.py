"""What the agent does besides answering calls: stop the worker, and watch for stalls.

The same object serves both forms of the agent, with an event loop and without.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from attrs import define, field

logger = logging.getLogger(__name__)

FORCE_AFTER: Final = 0.8
"""Part of ``stop_timeout`` after which a target that has not returned is cancelled."""
_NEVER: Final = float("inf")
_STOP: Final = b"\0"
_END: Final = b"\1"
_MOST: Final = 65536


@define(eq=False)
class Duties:
    """Duties of one agent. All times are by `time.monotonic` [s].

    Args:
        lifeline: Descriptor that reads end-of-file when the controller has exited.
        on_stop: Called with False when the worker should stop, and with True if it
            still runs after `FORCE_AFTER` of ``stop_timeout``.
        look: Samples the main loop, and returns after how long to do so again [s].
    """

    _name: str
    _stop_timeout: float
    _lifeline: int
    _on_stop: Callable[[bool], None]
    _look: Callable[[], float]
    is_over: bool = field(default=False, init=False)
    """Whether the agent should end."""
    _wake_read: int = field(init=False)
    _wake_write: int = field(init=False)
    _has_controller: bool = field(default=True, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _look_at: float = field(default=0.0, init=False)
    _force_at: float = field(default=_NEVER, init=False)
    _kill_at: float = field(default=_NEVER, init=False)

    def __attrs_post_init__(self) -> None:
        # Created before the thread starts: no signal in between is lost.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def request_stop(self) -> None:
        """Stop the worker. Safe in signal handlers: only writes to a pipe."""
        self._wake(_STOP)

    def end(self) -> None:
        """End the agent."""
        self.is_over = True
        self._wake(_END)

    def close(self) -> None:
        """Close the pipe's reading end, when no task waits for it any more."""
        os.close(self._wake_read)

    def discard(self) -> None:
        """Close both ends of the pipe, when this is not used any more."""
        self.close()
        os.close(self._wake_write)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What to wait for; if one is readable, call `attend`."""
        if self._has_controller:
            return self._wake_read, self._lifeline
        return (self._wake_read,)

    @property
    def due_at(self) -> float:
        """When to call `attend` at the latest."""
        return min(self._look_at, self._force_at, self._kill_at)

    def attend(self, readable: Collection[int] = ()) -> None:
        """Do what is due now.

        Args:
            readable: Those of `descriptors` that are.
        """
        now = time.monotonic()
        if self._wake_read in readable and _STOP in self._read():
            self._begin_stop(now)
        if self._lifeline in readable and self._has_controller:
            self._has_controller = False
            logger.warning("%s: the controller has exited; stopping", self._name)
            self._begin_stop(now)
            self._kill_at = now + self._stop_timeout
        if now >= self._force_at:
            self._force_at = _NEVER
            self._on_stop(True)
        if now >= self._kill_at:
            self._kill_at = _NEVER
            # In case the guardian, which does the same, was killed as well.
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpgrp(), signal.SIGKILL)
        if now >= self._look_at:
            self._look_at = now + self._look()

    def _begin_stop(self, now: float) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._force_at = now + self._stop_timeout * FORCE_AFTER
            self._on_stop(False)

    def _read(self) -> bytes:
        with suppress(BlockingIOError):
            return os.read(self._wake_read, _MOST)
        return b""

    def _wake(self, what: bytes) -> None:
        with suppress(OSError):  # the pipe is full, or closed
            os.write(self._wake_write, what)
