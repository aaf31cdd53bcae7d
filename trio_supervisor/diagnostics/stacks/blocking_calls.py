"""Detect whether a thread is running, or waits in a blocking call."""

from __future__ import annotations

import threading
from enum import Enum, auto
from types import BuiltinMethodType, CodeType, FrameType
from typing import Final

from attrs import define, field

from trio_supervisor.diagnostics.stacks.frames import RunningThread
from trio_supervisor.diagnostics.stacks.instructions import (
    ENTER,
    current_call,
    evaluate,
)
from trio_supervisor.diagnostics.stacks.thread_clock import is_runnable, thread_time

_BLOCKING: Final = frozenset(
    {
        *("sleep", "pause", "acquire", "acquire_lock", "__enter__", ENTER),
        *("select", "poll", "epoll", "kevent", "control", "wait", "input"),
        *("accept", "connect", "recv", "recv_into", "recvmsg", "getaddrinfo"),
        *("recvfrom", "recvfrom_into", "read", "readline", "readinto"),
        *("waitpid", "waitid", "wait3", "wait4", "flock", "lockf"),
        *("sigwait", "sigwaitinfo", "sigtimedwait"),
    }
)
"""Blocking C functions; a thread whose innermost call has such a name waits."""

_ASLEEP: Final = 0.005
"""CPU share below which a thread in an unknown call is waiting."""

_MAX_CACHED: Final = 20_000
"""Instructions whose calls are cached."""


class _Call(Enum):
    """Kind of the call at a frame's current instruction."""

    NONE = auto()
    WAITS = auto()
    OTHER = auto()


@define(eq=False)
class WaitDetector:
    """Decides by the innermost call, and by the CPU time since the last sample."""

    _calls: dict[tuple[int, int], tuple[CodeType, _Call]] = field(
        factory=dict, init=False
    )
    _used: dict[int, int] = field(factory=dict, init=False)
    """CPU time of each thread at the last sample [ns]."""

    def is_waiting(self, thread: RunningThread, passed: int) -> bool:
        """Return whether *thread* waits.

        Args:
            passed: Time since the last sample [ns].
        """
        frame = thread.frame
        place = (id(frame.f_code), frame.f_lasti)
        if (known := self._calls.get(place)) is None:
            known = (frame.f_code, _call(frame))
            if len(self._calls) < _MAX_CACHED:
                self._calls[place] = known
        before = self._used.get(thread.ident)
        now = thread_time(thread.native_id)
        if now is not None:
            self._used[thread.ident] = now
        if known[1] is not _Call.OTHER or before is None or now is None:
            return known[1] is _Call.WAITS
        # An unknown call, such as a database driver's. A thread that computes uses the
        # CPU, or is runnable.
        return now - before < passed * _ASLEEP and not is_runnable(thread.native_id)


def _call(frame: FrameType) -> _Call:
    if (call := current_call(frame)) is None:
        return _Call.NONE
    name, index = call
    called = evaluate(frame, index).value
    if type(called) is BuiltinMethodType:
        name = called.__name__  # its own name, even if called by an alias
    # Any other "join" is usually str.join.
    is_thread = name == "join" and frame.f_code.co_filename == threading.__file__
    return _Call.WAITS if name in _BLOCKING or is_thread else _Call.OTHER
