"""A snapshot of this process: a forked copy, in which there is time to look at it.

The process itself goes on; it stands still for as long as the fork takes. The copy is
a child that lives by itself for a while, and tells what it found over a pipe.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson
from attrs import define, field

from trio_supervisor.diagnostics.snapshot.bare_fork import bare_fork, prepare, wait_for
from trio_supervisor.diagnostics.snapshot.memory_headroom import require_memory
from trio_supervisor.diagnostics.snapshot.snapshot_child import (
    SnapshotReporter,
    live_as_snapshot,
)
from trio_supervisor.diagnostics.snapshot.thread_states import hold_thread_states
from trio_supervisor.errors import PlatformError, SnapshotError

Fields = dict[str, Any]
Work = Callable[[SnapshotReporter], Fields]
"""What a snapshot does: returns its result, as JSON has it."""

_READ: Final = 256 * 1024
_TRIES: Final = 8
"""A thread that uses malloc all the time has its lock at one clone in some hundred."""
_LOOK: Final = 0.05
"""Between two looks at a child that has not begun yet [s]."""


@define(eq=False)
class Snapshot:
    """A snapshot at work; made by `fork_snapshot`. Whoever has it must `close` it.

    To wait for it, wait until `descriptor` is readable and call `receive`, again and
    again until `is_over`.
    """

    process_id: int
    descriptor: int
    """Of a pipe: readable when there is progress, the result, or the end."""
    pause: float
    """How long the process was paused for the fork [s]."""
    deadline: float
    """When it has to be over, by time.monotonic(); it kills itself then [s]."""
    is_over: bool = field(default=False, init=False)
    """Whether it said all that it had to say, or ended."""
    progress: float = field(default=0.0, init=False)
    """How far it is, from 0 to 1."""
    pidfd: int | None = field(init=False)
    """Readable when it has ended: then `close` need not wait. None: unsupported."""
    _unread: bytes = field(default=b"", init=False)
    _answer: Fields | None = field(default=None, init=False)
    _has_begun: bool = field(default=False, init=False)
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.pidfd = None
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # it was waited for by somebody else already
                self.pidfd = os.pidfd_open(self.process_id)

    def receive(self) -> float:
        """Take what it has said so far, without waiting; return its progress."""
        while not self.is_over:
            try:
                data = os.read(self.descriptor, _READ)
            except BlockingIOError:
                break
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._take(orjson.loads(line))
            self.is_over = self.is_over or not data
        return self.progress

    def result(self) -> Fields:
        """Return what its work returned.

        Raises:
            SnapshotError: the work failed, or the snapshot ended before it was done.
        """
        if self._answer is None:
            raise SnapshotError("the snapshot was killed or ran out of time")
        if (problem := self._answer.get("problem")) is not None:
            raise SnapshotError(f"the snapshot failed: {problem}")
        result: Fields = self._answer["result"]
        return result

    def wait(self) -> Fields:
        """Block until its end, its deadline at the latest; return its result.

        Raises:
            SnapshotError: as `result`.
        """
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not self.is_over and (left := self.deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self.receive()
        return self.result()

    def close(self) -> None:
        """Kill it if it still runs, wait for its end, and let go of it."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(ProcessLookupError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            else:
                os.kill(self.process_id, signal.SIGKILL)
        with suppress(ChildProcessError):  # somebody waits for any child
            wait_for(self.process_id)
        for descriptor in (self.descriptor, self.pidfd):
            if descriptor is not None:
                os.close(descriptor)

    def begins(self) -> bool:
        """Wait until it has begun; return False if it never can.

        It can not when it waits for a lock: no other thread is there to release it.
        """
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        used = -1
        while not (self._has_begun or self.is_over):
            if poll.poll(_LOOK * 1000):
                self.receive()
                continue
            if time.monotonic() > self.deadline:
                break
            before, used = used, _time_used_asleep(self.process_id)
            if used == before != -1:
                return False
        return True

    def _take(self, message: Fields) -> None:
        if "progress" in message:
            self.progress = message["progress"]
        elif "begun" in message:
            self._has_begun = True
        else:
            self._answer = message
            self.is_over = True


def fork_snapshot(work: Work, time_box: float, keep: Iterable[int] = ()) -> Snapshot:
    """Fork a snapshot of this process that does *work*.

    Any thread may call it. *work* runs with the collector off, and finds the heap as it
    is now; no thread but its own exists there, and no descriptor but those of *keep*.
    Neither the application nor its C libraries are told of the fork, see `bare_fork`.

    Args:
        time_box: How long it may take [s].

    Raises:
        LowMemoryError: the copy might need more memory than there is.
        SnapshotError: the system does not let us fork, or no copy could begin.
        PlatformError: this process cannot be forked safely.
    """
    require_memory()
    prepare()
    keep, pause = tuple(keep), 0.0
    for _ in range(_TRIES):
        snapshot = _fork(work, time_box, keep)
        pause += snapshot.pause
        try:
            if snapshot.begins():
                snapshot.pause = pause
                return snapshot
        except BaseException:
            snapshot.close()
            raise
        snapshot.close()
    raise SnapshotError(
        f"{_TRIES} copies of this process in a row did not begin: each waited for a "
        "lock, as of malloc, that another thread held when it was forked; try again"
    )


def _fork(work: Work, time_box: float, keep: Iterable[int]) -> Snapshot:
    parent = os.getpid()
    try:
        descriptor, theirs = os.pipe()
    except OSError as exc:
        raise SnapshotError(f"cannot fork a snapshot: {exc}") from None
    try:
        began = time.monotonic()
        # Both until after the fork, so that nothing is finalised in the child.
        held = hold_thread_states(), dict(getattr(threading, "_active", {}))
        if held[0] is None:
            raise PlatformError("this interpreter's threads cannot be kept from harm")
        reporter = SnapshotReporter(theirs, parent)
        pid = bare_fork(partial(live_as_snapshot, work, reporter, time_box, keep))
        pause = time.monotonic() - began
    except BaseException as exc:
        os.close(descriptor)
        if isinstance(exc, OSError):
            raise SnapshotError(f"cannot fork a snapshot: {exc}") from None
        raise
    finally:
        os.close(theirs)
    os.set_blocking(descriptor, False)
    return Snapshot(pid, descriptor, pause, began + time_box)


def _time_used_asleep(process_id: int) -> int:
    """Return the processor time of a process that sleeps; -1: it does not, or is gone.

    Source: proc_pid_stat(5), state, utime and stime.
    """
    with suppress(OSError, ValueError), open(f"/proc/{process_id}/stat") as file:
        state, *fields = file.read().rpartition(")")[2].split()
        if state == "S":
            return int(fields[10]) + int(fields[11])
    return -1
