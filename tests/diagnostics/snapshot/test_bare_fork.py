"""Snapshots of processes whose C libraries have threads, locks and fork handlers."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np
import pytest

from trio_supervisor.diagnostics.snapshot import bare_fork, snapshot_child
from trio_supervisor.diagnostics.snapshot.fork_hook import entry_of_child
from trio_supervisor.diagnostics.snapshot.snapshot import Fields, fork_snapshot
from trio_supervisor.diagnostics.snapshot.snapshot_child import SnapshotReporter
from trio_supervisor.errors import PlatformError, SnapshotError

TIME_BOX = 60.0


@contextmanager
def running(*works: Callable[[], None]) -> Iterator[list[int]]:
    """Have threads that do *works* again and again; yield how often each was done."""
    leave = threading.Event()
    counts = [0] * len(works)

    def run(number: int) -> None:
        while not leave.is_set():
            works[number]()
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(works))]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        leave.set()
        for thread in threads:
            thread.join()


def wait_until_more(counts: list[int]) -> None:
    """Wait until each thread has done its work once more: none of them is stuck."""
    before = list(counts)
    deadline = time.monotonic() + TIME_BOX
    while any(now <= then for now, then in zip(counts, before, strict=True)):
        assert time.monotonic() < deadline, (before, counts)
        time.sleep(0.01)


def multiply() -> None:
    """Compute with all of OpenBLAS's threads."""
    matrix = np.ones((256, 256))
    assert (matrix @ matrix)[0, 0] == 256


def allocate() -> None:
    """Take malloc's locks, with blocks that Python does not serve itself."""
    for size in (600, 5_000, 70_000, 200_000):
        bytearray(size)


def come_and_go() -> None:
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()


def count_objects(_: SnapshotReporter) -> Fields:
    return {"count": len(gc.get_objects())}


def test_snapshot_beside_matrix_products_does_not_hang() -> None:
    """os.fork would: OpenBLAS joins its threads there, which wait for the GIL."""
    with running(multiply, allocate, come_and_go) as counts:
        for _ in range(8):
            snapshot = fork_snapshot(count_objects, TIME_BOX)
            try:
                assert snapshot.wait()["count"] > 0
            finally:
                snapshot.close()
        wait_until_more(counts)


def test_snapshot_with_held_lock_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock's owner does not exist in the child: it would wait for ever."""
    tries = mmap.mmap(-1, 1)

    def hang_twice() -> None:
        tries[0] += 1
        while tries[0] <= 2:
            signal.pause()

    monkeypatch.setattr(snapshot_child, "check_malloc", hang_twice)
    snapshot = fork_snapshot(count_objects, TIME_BOX)
    try:
        assert snapshot.wait()["count"] > 0
    finally:
        snapshot.close()
    assert tries[0] == 3


def test_snapshot_that_never_begins_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang() -> None:
        while True:
            signal.pause()

    monkeypatch.setattr(snapshot_child, "check_malloc", hang)
    with pytest.raises(SnapshotError, match="such as malloc's"):
        fork_snapshot(count_objects, TIME_BOX)


def test_held_malloc_lock_is_detected_by_check_malloc() -> None:
    """Not somewhere in the middle of the work."""
    with running(allocate, allocate, allocate):
        for _ in range(15):
            snapshot = fork_snapshot(lambda _: {"done": True}, TIME_BOX)
            try:
                assert snapshot.wait() == {"done": True}
            finally:
                snapshot.close()


def test_unknown_platform_without_foreign_threads_uses_os_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bare_fork, "_clone_arguments", lambda: None)
    monkeypatch.setattr(bare_fork, "foreign_threads", lambda: 0)
    snapshot = fork_snapshot(count_objects, TIME_BOX)
    try:
        assert snapshot.wait()["count"] > 0
    finally:
        snapshot.close()


def test_unknown_platform_with_foreign_threads_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bare_fork, "_clone_arguments", lambda: None)
    monkeypatch.setattr(bare_fork, "foreign_threads", lambda: 3)
    with pytest.raises(PlatformError, match="3 of its threads were not"):
        fork_snapshot(count_objects, TIME_BOX)


def test_foreign_threads_counts_only_library_threads() -> None:
    program = (
        "import threading, time\n"
        "from trio_supervisor.diagnostics.snapshot.bare_fork import foreign_threads\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "before = foreign_threads()\n"
        "import numpy\n"
        "print(before, foreign_threads() > 0)\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["0", "True"]


def test_bare_fork_restores_signal_mask() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    fork_snapshot(count_objects, TIME_BOX).close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_fork_of_another_thread_is_no_snapshot() -> None:
    """A thread may fork between our preparations and our system call."""
    codes: list[int] = []

    def never() -> NoReturn:
        os._exit(99)

    def fork_elsewhere() -> None:
        with warnings.catch_warnings(action="ignore"):
            if (pid := os.fork()) == 0:
                os._exit(7)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with entry_of_child(never):
        thread = threading.Thread(target=fork_elsewhere)
        thread.start()
        thread.join()
    assert codes == [7]
