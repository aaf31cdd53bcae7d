"""Fork a snapshot of this process, to inspect its memory while it keeps running.

The process is paused only for the fork. The snapshot is a child process with a time
limit, which sends its result over a pipe.
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
    run_snapshot,
)
from trio_supervisor.diagnostics.snapshot.thread_states import hold_thread_states
from trio_supervisor.errors import PlatformError, SnapshotError

Fields = dict[str, Any]
Work = Callable[[SnapshotReporter], Fields]
"""The work of a snapshot: returns its result, in JSON's types."""

_READ: Final = 256 * 1024
_TRIES: Final = 8
"""Even with a thread that calls malloc all the time, few forks in a hundred fail."""
_POLL: Final = 0.05
"""Time between two checks of a child that has not begun yet [s]."""


@define(eq=False)
class Snapshot:
    """A running snapshot, made by `fork_snapshot`; the caller must `close` it.

    To wait for it, repeat until `is_over`: wait until `descriptor` is readable, and
    call `receive`.
    """

    process_id: int
    descriptor: int
    """Descriptor of a pipe: readable on progress, result or exit."""
    pause: float
    """How long the process was paused for the fork [s]."""
    deadline: float
    """When it kills itself, by time.monotonic() [s]."""
    is_over: bool = field(default=False, init=False)
    """Whether it has sent its result, or exited."""
    progress: float = field(default=0.0, init=False)
    """Its progress, from 0 to 1."""
    pidfd: int | None = field(init=False)
    """Readable once it has exited: then `close` does not block. None: unsupported."""
    _unread: bytes = field(default=b"", init=False)
    _answer: Fields | None = field(default=None, init=False)
    _has_begun: bool = field(default=False, init=False)
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.pidfd = None
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # the application has already reaped it
                self.pidfd = os.pidfd_open(self.process_id)

    def receive(self) -> float:
        """Read all pending messages, without waiting; return the progress."""
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
        """Return the result of its work.

        Raises:
            SnapshotError: the work failed, or the snapshot exited before its end.
        """
        if self._answer is None:
            raise SnapshotError("the snapshot was killed or ran out of time")
        if (problem := self._answer.get("problem")) is not None:
            raise SnapshotError(f"the snapshot failed: {problem}")
        result: Fields = self._answer["result"]
        return result

    def wait(self) -> Fields:
        """Block until it is over, at most until its deadline; return its result.

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
        """Kill it if it still runs, reap it, and close its descriptors."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(ProcessLookupError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            else:
                os.kill(self.process_id, signal.SIGKILL)
        with suppress(ChildProcessError):  # the application has reaped it
            wait_for(self.process_id)
        for descriptor in (self.descriptor, self.pidfd):
            if descriptor is not None:
                os.close(descriptor)

    def begins(self) -> bool:
        """Wait until its work has begun; return False if it is deadlocked.

        That is when it waits for a lock: no other thread exists to release it.
        """
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        used = -1
        while not (self._has_begun or self.is_over):
            if poll.poll(_POLL * 1000):
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
    """Fork a snapshot of this process that calls *work*.

    Any thread may call it. *work* runs with the garbage collector disabled, on the heap
    as it is now; no other thread exists there, and no descriptors except *keep*. No
    fork handlers of the application or its C libraries run, see `bare_fork`.

    Args:
        time_box: Time limit [s].

    Raises:
        LowMemoryError: the snapshot may need more memory than is free.
        SnapshotError: the fork failed, or no snapshot could begin its work.
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
        f"{_TRIES} snapshots in a row deadlocked: each waited for a lock, such as "
        "malloc's, that another thread held at the fork; try again"
    )


def _fork(work: Work, time_box: float, keep: Iterable[int]) -> Snapshot:
    parent = os.getpid()
    try:
        descriptor, theirs = os.pipe()
    except OSError as exc:
        raise SnapshotError(f"cannot fork a snapshot: {exc}") from None
    try:
        began = time.monotonic()
        # Keep both alive across the fork, so that nothing is finalized in the child.
        held = hold_thread_states(), dict(getattr(threading, "_active", {}))
        if held[0] is None:
            raise PlatformError(
                "the thread states of this interpreter cannot be preserved in a fork"
            )
        reporter = SnapshotReporter(theirs, parent)
        pid = bare_fork(partial(run_snapshot, work, reporter, time_box, keep))
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
    """Return the CPU time of a sleeping process; -1: it runs, or has exited.

    Source: proc_pid_stat(5), state, utime and stime.
    """
    with suppress(OSError, ValueError), open(f"/proc/{process_id}/stat") as file:
        state, *fields = file.read().rpartition(")")[2].split()
        if state == "S":
            return int(fields[10]) + int(fields[11])
    return -1
