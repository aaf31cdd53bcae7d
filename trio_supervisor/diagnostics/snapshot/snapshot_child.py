"""What a forked snapshot does to be no harm to anybody, and to come to an end."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

import orjson
from attrs import define, field

from trio_supervisor.diagnostics.snapshot.bare_fork import rehearse

T = TypeVar("T")

_CHUNK: Final = 256
"""Objects that are looked at together."""
_NICE: Final = 5
"""A quarter of a processor beside one busy thread. At 19 it is 1.5 %: a snapshot of a
worker that computes on all processors ran out of its time."""
_INTERVAL: Final = 0.1
"""Between two reports of progress [s]."""


@define(eq=False)
class SnapshotReporter:
    """The snapshot's way to tell its parent."""

    descriptor: int
    """Of a pipe."""
    _parent: int
    kept: list[object] = field(factory=list, init=False)
    """What must not be finalised here."""
    _next: float = field(default=0.0, init=False)
    _span: tuple[float, float] = field(default=(0.0, 1.0), init=False)

    def begin(self, start: float, end: float) -> None:
        """What comes now is the part of the work from *start* to *end*, of 1."""
        self._span = start, end

    def chunks(self, objects: Sequence[T]) -> Iterator[Sequence[T]]:
        """Return *objects* in pieces, and tell how far it is meanwhile."""
        for first in range(0, len(objects), _CHUNK):
            if first % (_CHUNK * 64) == 0:
                self.progress(first / len(objects))
            yield objects[first : first + _CHUNK]

    def progress(self, done: float) -> None:
        """Tell that so much of this part of the work is done, of 1."""
        if os.getppid() != self._parent:
            os._exit(1)  # nobody is left to tell
        if (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL
            start, end = self._span
            self.say({"progress": round(start + done * (end - start), 3)})

    def say(self, message: dict[str, Any]) -> None:
        """Send one message."""
        write_all(self.descriptor, orjson.dumps(message) + b"\n")


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write all of *data*.

    Raises:
        OSError: not all of it could be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def live_as_snapshot(
    work: Callable[[SnapshotReporter], dict[str, Any]],
    reporter: SnapshotReporter,
    time_box: float,
    keep: Iterable[int],
) -> NoReturn:
    """Do *work*, tell its result, and end: without exit handlers or destructors."""
    try:
        reporter.kept = _withdraw({reporter.descriptor, *keep}, time_box)
        rehearse()
        reporter.say({"begun": True})
        reporter.say({"result": work(reporter)})
    except BaseException as exc:
        with suppress(BaseException):
            reporter.say({"problem": f"{type(exc).__name__}: {exc}"})
    finally:
        os._exit(0)


def _withdraw(keep: set[int], time_box: float) -> list[object]:
    """Leave all that the parent still uses; return what must be kept from its end."""
    gc.disable()
    sys.settrace(None)
    sys.setprofile(None)
    handlers = _reset_signals()
    signal.setitimer(signal.ITIMER_REAL, time_box)
    _close_all_but(keep)
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError):  # not everywhere
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, b"1000")
        os.close(descriptor)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return handlers


def _reset_signals() -> list[object]:
    signal.set_wakeup_fd(-1)
    handlers: list[object] = []
    for number in signal.valid_signals():
        if callable(handler := signal.getsignal(number)):
            handlers.append(handler)
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # The thread that forked may have had them all blocked.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return handlers


def _close_all_but(keep: set[int]) -> None:
    places = "/proc/self/fd", "/dev/fd"
    names = os.listdir(next(place for place in places if os.path.isdir(place)))
    for descriptor in map(int, names):
        if descriptor not in keep:
            with suppress(OSError):  # the one that the list was read with
                os.close(descriptor)
    # What is opened next must not become standard output.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
