"""Resource shortages, the reserve thread, and logs of repeated failures."""

from __future__ import annotations

import errno
import logging
import threading

import pytest
import trio

from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.threads import keep_reserve, run_in_thread

NUMBERS = [
    errno.EAGAIN,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
]


def no_threads(_: threading.Thread) -> None:
    """Fail as `threading.Thread.start` does at the limit of processes."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("number", NUMBERS)
def test_shortage_of_errno_of_a_limit_is_found_through_causes_and_groups(
    number: int,
) -> None:
    group = ExceptionGroup("", [OSError(number, "why")])
    outer = OSError("all attempts failed")
    outer.__cause__ = group
    found = shortage_of(outer)
    assert found is not None
    assert found.errno == number
    assert text_of(found).startswith("why")
    assert shortage_of(found) is found


def test_shortage_of_memory_thread_and_segment_errors() -> None:
    for exc, number in (
        (MemoryError(), errno.ENOMEM),
        (RuntimeError("can't start new thread"), errno.EAGAIN),
        (ImportError("x.so: failed to map segment from shared object"), errno.ENOMEM),
    ):
        found = shortage_of(exc)
        assert found is not None
        assert found.errno == number


@pytest.mark.parametrize(
    "exc",
    [
        FileNotFoundError(errno.ENOENT, "x"),
        PermissionError(errno.EPERM, "x"),
        BrokenPipeError(errno.EPIPE, "x"),
        RuntimeError("something else"),
        ImportError("no module"),
        OSError("no number"),
    ],
)
def test_shortage_of_another_error_is_none(exc: Exception) -> None:
    assert shortage_of(exc) is None


def test_run_in_thread_without_threads_uses_the_reserve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        with keep_reserve():
            monkeypatch.setattr(threading.Thread, "start", no_threads)
            assert await run_in_thread(divmod, 7, 2) == (3, 1)
            with pytest.raises(ZeroDivisionError):
                await run_in_thread(divmod, 7, 0)
            waits = threading.Event()
            with trio.move_on_after(0.01) as scope:
                await run_in_thread(waits.wait, 0.1)
            assert not scope.cancelled_caught  # as trio has it: it was waited for
            with trio.move_on_after(0.01) as scope:
                await run_in_thread(waits.wait, 0.1, abandon_on_cancel=True)
            assert scope.cancelled_caught
        with pytest.raises(OSError, match="cannot start a thread"):
            await run_in_thread(divmod, 7, 2)

    trio.run(_with_cold_threads, main)


def test_keep_reserve_without_threads_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_threads)
    with pytest.raises(OSError, match="cannot start a thread"), keep_reserve():
        pass
    monkeypatch.undo()
    with keep_reserve():
        pass


def test_run_in_thread_error_of_function_is_not_a_shortage() -> None:
    def fail() -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with keep_reserve(), pytest.raises(RuntimeError):
            await run_in_thread(fail)

    trio.run(main)


def test_repeated_failures_log_begin_and_end(caplog: pytest.LogCaptureFixture) -> None:
    log = RepeatedFailures(logging.getLogger("x"), "it works")
    log.worked()
    for cause in ("a", "b", "a", "b"):
        log.failed(cause)
    log.worked()
    log.worked()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == ["a", "b"]
    assert messages[2].startswith("it works again (failed 4 times in ")
    assert len(messages) == 3
    log.failed("a")
    assert len(caplog.records) == 4


async def _with_cold_threads(main: object) -> None:
    """Run *main* while no idle thread of trio is left to be used again."""
    from trio._core import _thread_cache

    _thread_cache.THREAD_CACHE._idle_workers.clear()
    assert callable(main)
    await main()
