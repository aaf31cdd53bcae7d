"""Whether a thread runs or waits, of all that Python itself cannot tell."""

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
"""Functions in C that wait; a thread whose innermost call has such a name waits."""

_ASLEEP: Final = 0.005
"""Share of the processor's time below which a thread in a call waits."""

_MOST: Final = 20_000
"""Instructions whose calls are remembered."""


class _Call(Enum):
    """What a frame's current instruction calls."""

    NONE = auto()
    WAITS = auto()
    OTHER = auto()


@define(eq=False)
class WaitDetector:
    """Looks at the innermost call, and at the processor time since the last look."""

    _calls: dict[tuple[int, int], tuple[CodeType, _Call]] = field(
        factory=dict, init=False
    )
    _used: dict[int, int] = field(factory=dict, init=False)
    """The processor time of each thread at the last look [ns]."""

    def is_waiting(self, thread: RunningThread, passed: int) -> bool:
        """Return whether *thread* waits.

        Args:
            passed: Since the last look [ns].
        """
        frame = thread.frame
        place = (id(frame.f_code), frame.f_lasti)
        if (known := self._calls.get(place)) is None:
            known = (frame.f_code, _call(frame))
            if len(self._calls) < _MOST:
                self._calls[place] = known
        before = self._used.get(thread.ident)
        now = thread_time(thread.native_id)
        if now is not None:
            self._used[thread.ident] = now
        if known[1] is not _Call.OTHER or before is None or now is None:
            return known[1] is _Call.WAITS
        # A call that nobody knows, as of a database's driver. A thread that computes
        # gets some of the processor, or stands in line for it.
        return now - before < passed * _ASLEEP and not is_runnable(thread.native_id)


def _call(frame: FrameType) -> _Call:
    if (call := current_call(frame)) is None:
        return _Call.NONE
    name, index = call
    called = evaluate(frame, index).value
    if type(called) is BuiltinMethodType:
        name = called.__name__  # also where it was given another one
    # Any other "join" is most often that of strings.
    is_thread = name == "join" and frame.f_code.co_filename == threading.__file__
    return _Call.WAITS if name in _BLOCKING or is_thread else _Call.OTHER
