"""Isolate a forked snapshot from its parent, run its work, and exit."""

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

from trio_supervisor.diagnostics.snapshot.bare_fork import check_malloc

T = TypeVar("T")

_CHUNK: Final = 256
"""Objects per chunk."""
_NICE: Final = 5
"""Gives a quarter of a CPU beside one busy thread. 19 gives 1.5 %: the snapshot of a
worker that computes on all CPUs ran out of its time limit."""
_INTERVAL: Final = 0.1
"""Time between two progress reports [s]."""


@define(eq=False)
class SnapshotReporter:
    """Sends the snapshot's progress and result to its parent."""

    descriptor: int
    """Descriptor of a pipe."""
    _parent: int
    kept: list[object] = field(factory=list, init=False)
    """Objects that must not be finalized in the snapshot."""
    _next: float = field(default=0.0, init=False)
    _span: tuple[float, float] = field(default=(0.0, 1.0), init=False)

    def begin(self, start: float, end: float) -> None:
        """Begin the part of the work from *start* to *end*, of 1."""
        self._span = start, end

    def chunks(self, objects: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yield *objects* in chunks, and report the progress."""
        for first in range(0, len(objects), _CHUNK):
            if first % (_CHUNK * 64) == 0:
                self.progress(first / len(objects))
            yield objects[first : first + _CHUNK]

    def progress(self, done: float) -> None:
        """Report that *done* of this part of the work is complete, of 1."""
        if os.getppid() != self._parent:
            os._exit(1)  # the parent has exited
        if (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL
            start, end = self._span
            self.send({"progress": round(start + done * (end - start), 3)})

    def send(self, message: dict[str, Any]) -> None:
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


def run_snapshot(
    work: Callable[[SnapshotReporter], dict[str, Any]],
    reporter: SnapshotReporter,
    time_box: float,
    keep: Iterable[int],
) -> NoReturn:
    """Run *work*, send its result, and exit without exit handlers or finalizers."""
    try:
        reporter.kept = _isolate({reporter.descriptor, *keep}, time_box)
        check_malloc()
        reporter.send({"begun": True})
        reporter.send({"result": work(reporter)})
    except BaseException as exc:
        with suppress(BaseException):
            reporter.send({"problem": f"{type(exc).__name__}: {exc}"})
    finally:
        os._exit(0)


def _isolate(keep: set[int], time_box: float) -> list[object]:
    """Give up all resources of the parent; return objects that must stay alive."""
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
    # The forking thread may have blocked them all.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return handlers


def _close_all_but(keep: set[int]) -> None:
    places = "/proc/self/fd", "/dev/fd"
    names = os.listdir(next(place for place in places if os.path.isdir(place)))
    for descriptor in map(int, names):
        if descriptor not in keep:
            with suppress(OSError):  # the descriptor of the listing
                os.close(descriptor)
    # Fill 0 to 2, so that no file that is opened later becomes standard output.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
