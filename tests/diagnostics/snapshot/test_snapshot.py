"""Forked snapshots: what they find, and that they harm nobody."""

from __future__ import annotations

import atexit
import contextvars
import gc
import logging
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.diagnostics.memory_usage import host_free_memory
from trio_supervisor.diagnostics.snapshot.memory_headroom import (
    free_in_group,
    free_memory,
    refuse_if_short,
)
from trio_supervisor.diagnostics.snapshot.snapshot import (
    Fields,
    Snapshot,
    fork_snapshot,
)
from trio_supervisor.diagnostics.snapshot.snapshot_child import SnapshotReporter
from trio_supervisor.errors import LowMemoryError, SnapshotError

TIME_BOX = 60.0


def run(
    work: Callable[[SnapshotReporter], Fields], time_box: float = TIME_BOX
) -> Fields:
    snapshot = fork_snapshot(work, time_box)
    try:
        return snapshot.wait()
    finally:
        snapshot.close()


def sleep_forever(_: SnapshotReporter) -> Fields:
    while True:
        signal.pause()


def is_gone(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def test_snapshot_sees_heap_while_process_continues() -> None:
    kept = ["as it was"]
    snapshot = fork_snapshot(lambda _: {"kept": kept}, TIME_BOX)
    kept.append("later")
    try:
        assert snapshot.wait() == {"kept": ["as it was"]}
    finally:
        snapshot.close()
    assert is_gone(snapshot.process_id)
    assert 0 < snapshot.pause < TIME_BOX


def test_snapshot_reports_progress() -> None:
    """In the parts of the work that it is said to be of."""
    go, theirs = os.pipe()

    def work(reporter: SnapshotReporter) -> Fields:
        reporter.begin(0.5, 1.0)
        reporter.progress(0.5)
        os.read(go, 1)
        return {}

    snapshot = fork_snapshot(work, TIME_BOX, (go,))
    try:
        while snapshot.receive() != 0.75:
            select.select([snapshot.descriptor], [], [])
        assert not snapshot.is_over
        os.write(theirs, b"g")
        assert snapshot.wait() == {}
    finally:
        snapshot.close()
        os.close(go)
        os.close(theirs)


def test_snapshot_result_larger_than_a_pipe() -> None:
    assert len(run(lambda _: {"text": "x" * 1_000_000})["text"]) == 1_000_000


def test_snapshot_closes_inherited_descriptors() -> None:
    """But for standard input and output, which lead nowhere, and its pipe."""

    def work(_: SnapshotReporter) -> Fields:
        return {n: os.readlink(f"/proc/self/fd/{n}") for n in ("0", "1", "2")} | {
            "count": len(os.listdir("/proc/self/fd")) - 1
        }

    null = {"0": os.devnull, "1": os.devnull, "2": os.devnull}
    assert run(work) == {**null, "count": 4}


def test_snapshot_is_isolated() -> None:
    """Low priority, first to be killed, no signal handlers, nothing collected."""

    def work(_: SnapshotReporter) -> Fields:
        return {
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "killed first": int(Path("/proc/self/oom_score_adj").read_text()),
            "collecting": gc.isenabled(),
            "handling": signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL,
            "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        }

    found: list[Fields] = []

    def fork_with_signals_blocked() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        found.append(run(work))

    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        thread = threading.Thread(target=fork_with_signals_blocked)
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert found == [
        {
            "nice": 5,
            "killed first": 1000,
            "collecting": False,
            "handling": False,
            "blocked": 0,
        }
    ]
    assert gc.isenabled()


class Goodbye:
    """Says goodbye when it is finalised, as a connection to a database does."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.write(self.descriptor, b"goodbye ")


@pytest.fixture
def goodbyes() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


def read_all(descriptor: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(descriptor, 1000)
    return b""


class OtherThreads:
    """Threads in whose state alone there is something with a finaliser."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._local = threading.local()
        self._variable = contextvars.ContextVar[Any]("variable")
        self._ready = threading.Semaphore(0)
        self._leave = threading.Event()
        targets = (self._keep_local, self._keep_in_context, self._keep_in_exception)
        self._threads = [threading.Thread(target=target) for target in targets]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
            self._ready.acquire()

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join()

    def _wait(self) -> None:
        self._ready.release()
        self._leave.wait()

    def _keep_local(self) -> None:
        self._local.connection = Goodbye(self._descriptor)
        self._wait()

    def _keep_in_context(self) -> None:
        self._variable.set(Goodbye(self._descriptor))
        self._wait()

    def _keep_in_exception(self) -> None:
        try:
            self._fail()
        except ValueError:
            self._wait()

    def _fail(self) -> None:
        connection = Goodbye(self._descriptor)
        raise ValueError(connection.descriptor)


def test_snapshot_does_not_finalize_other_threads_data(
    goodbyes: tuple[int, int],
) -> None:
    """Nor at the end, by an exit handler or by a destructor."""
    read, write = goodbyes
    atexit.register(os.write, write, b"exit handler")
    own = Goodbye(write)
    try:
        with OtherThreads(write):
            assert run(lambda _: {}) == {}
            assert read_all(read) == b""
        assert read_all(read) == b"goodbye goodbye goodbye "  # in their own time
    finally:
        atexit.unregister(os.write)
        del own


def test_plain_fork_finalizes_other_threads_data(goodbyes: tuple[int, int]) -> None:
    """Or else the test above would prove nothing."""
    read, write = goodbyes
    with OtherThreads(write):
        with warnings.catch_warnings(action="ignore"):
            if (pid := os.fork()) == 0:
                os._exit(0)
        os.waitpid(pid, 0)
        assert read_all(read) == b"goodbye goodbye goodbye "


def test_snapshot_leaks_no_reference_to_threads(goodbyes: tuple[int, int]) -> None:
    """What a thread had is finalised when it ends, snapshots or not."""
    read, write = goodbyes
    for _ in range(3):
        with OtherThreads(write):
            run(lambda _: {})
        assert read_all(read) == b"goodbye goodbye goodbye "


def test_snapshot_exits_at_its_deadline() -> None:
    """Even if nobody looks after it."""
    snapshot = fork_snapshot(sleep_forever, 0.05)
    assert snapshot.pidfd is not None
    select.select([snapshot.pidfd], [], [])
    with pytest.raises(SnapshotError, match="ran out of time"):
        snapshot.wait()
    snapshot.close()


def test_snapshot_wait_ends_at_deadline() -> None:
    def be_deaf(_: SnapshotReporter) -> Fields:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        return sleep_forever(_)

    snapshot = fork_snapshot(be_deaf, 0.05)
    with pytest.raises(SnapshotError, match="ran out of time"):
        snapshot.wait()
    snapshot.close()
    assert is_gone(snapshot.process_id)


def test_snapshot_close_kills_it() -> None:
    snapshot = fork_snapshot(sleep_forever, TIME_BOX)
    began = time.monotonic()
    snapshot.close()
    snapshot.close()
    assert is_gone(snapshot.process_id)
    assert time.monotonic() - began < TIME_BOX / 2


def test_snapshot_exits_with_its_parent() -> None:
    """It notices when it would tell how far it is."""
    read, write = os.pipe()

    def work(reporter: SnapshotReporter) -> Fields:
        while True:
            reporter.progress(0.0)

    def be_killed(_: SnapshotReporter) -> Fields:
        snapshot: Snapshot = fork_snapshot(work, TIME_BOX, (write,))
        select.select([snapshot.descriptor], [], [])
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    snapshot = fork_snapshot(be_killed, TIME_BOX, (write,))
    os.close(write)
    assert os.read(read, 1) == b""  # both have let go of it
    snapshot.close()
    os.close(read)


def test_snapshot_failure_has_its_reason() -> None:
    def work(_: SnapshotReporter) -> Fields:
        raise KeyError("nothing of that name")

    with pytest.raises(SnapshotError, match="KeyError: 'nothing of that name'"):
        run(work)


def test_snapshot_runs_no_fork_handlers() -> None:
    """No SIGCHLD, no child to be waited for, and no hook of os.register_at_fork."""
    learned: list[str] = []
    is_over = False

    def learn(what: str) -> None:
        if not is_over:
            learned.append(what)

    def work(_: SnapshotReporter) -> Fields:
        return {"learned": learned}

    os.register_at_fork(
        before=lambda: learn("before"),
        after_in_parent=lambda: learn("in the parent"),
        after_in_child=lambda: learn("in the child"),
    )
    before = signal.signal(signal.SIGCHLD, lambda *_: learn("SIGCHLD"))
    try:
        snapshot = fork_snapshot(work, TIME_BOX)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, 0)
        assert snapshot.wait() == {"learned": []}
        assert snapshot.pidfd is not None
        select.select([snapshot.pidfd], [], [])
        with pytest.raises(ChildProcessError):
            os.waitpid(snapshot.process_id, os.WNOHANG)
        snapshot.close()
        assert is_gone(snapshot.process_id)
    finally:
        signal.signal(signal.SIGCHLD, before)
        is_over = True
    assert learned == []


def test_snapshot_leaves_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    run(lambda _: {})
    assert set(os.listdir("/proc/self/fd")) == before


def test_snapshot_beside_busy_threads_does_not_hang() -> None:
    """Threads that come and go, and log, with locks and thread-local data."""
    leave = threading.Event()
    logger = logging.getLogger(f"{__name__}.busy")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(open(os.devnull, "w")))  # noqa: SIM115  # closed below
    local = threading.local()

    def log() -> None:
        local.data = ["something"]
        logger.warning("busy")

    def be_busy() -> None:
        while not leave.is_set():
            thread = threading.Thread(target=log)
            thread.start()
            thread.join()

    threads = [threading.Thread(target=be_busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert run(lambda _: {"done": True}) == {"done": True}
    finally:
        leave.set()
        for thread in threads:
            thread.join()
        logger.handlers.pop().stream.close()  # type: ignore[attr-defined]  # made above


def test_snapshot_emits_no_warning() -> None:
    """Here warnings are errors, and from 3.12 on a fork beside threads is one."""
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        assert run(lambda _: {}) == {}
    finally:
        leave.set()
        thread.join()


def test_other_fork_warnings_are_kept() -> None:
    with pytest.raises(DeprecationWarning, match="something else"):
        warnings.warn("something else", DeprecationWarning, stacklevel=1)


MIB = 1 << 20


def test_snapshot_without_free_memory_is_refused() -> None:
    refuse_if_short(100 * MIB, 200 * MIB)
    with pytest.raises(LowMemoryError, match=r"\(100 MiB\), but only 110 MiB are free"):
        refuse_if_short(100 * MIB, 110 * MIB)


@pytest.mark.parametrize(("limit", "free"), [("1000", 250), ("max", None)])
def test_free_memory_respects_cgroup_limit(
    tmp_path: Path, limit: str, free: int | None
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("800\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 50\n")
    assert free_in_group(tmp_path) == free


def test_free_memory_is_at_most_the_hosts() -> None:
    assert free_memory() <= host_free_memory() * 1.05
