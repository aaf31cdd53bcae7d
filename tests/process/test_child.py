"""One test suite for `FakeProcess` and `ChildProcess`, to keep the fake realistic."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
import trio

from trio_supervisor.process.child import ChildProcess, Process, describe_exit
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan, stop
from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.testing import FakeProcess, in_virtual_time

# Sleeps in C, so that a signal without a handler ends it at once.
_PROGRAM = """
import os, signal, sys, time
ignores, code, grandchild_ignores = {ignores!r}, {code!r}, {grandchild_ignores!r}
if grandchild_ignores is not None and os.fork() == 0:
    for sig in grandchild_ignores:
        signal.signal(sig, signal.SIG_IGN)
    os.write({ready}, b"x")
    time.sleep(3600)
for sig in ignores:
    signal.signal(sig, signal.SIG_IGN)
os.write({ready}, b"x")
if code is not None:
    os._exit(code)
time.sleep(3600)
"""


class Make(Protocol):
    """Starts a process that has begun to run when the block is entered."""

    def __call__(
        self,
        ignores: Collection[int] = (),
        *,
        exits_with: int | None = None,
        grandchild_ignores: Collection[int] | None = None,
    ) -> AbstractAsyncContextManager[Process]: ...


@asynccontextmanager
async def fake(
    ignores: Collection[int] = (),
    *,
    exits_with: int | None = None,
    grandchild_ignores: Collection[int] | None = None,
) -> AsyncIterator[Process]:
    process = FakeProcess(ignores=ignores, grandchild_ignores=grandchild_ignores)
    if exits_with is not None:
        process.exit(exits_with)
    yield process


@asynccontextmanager
async def real(
    ignores: Collection[int] = (),
    *,
    exits_with: int | None = None,
    grandchild_ignores: Collection[int] | None = None,
) -> AsyncIterator[Process]:
    read, write = os.pipe()
    program = _PROGRAM.format(
        ignores=[int(sig) for sig in ignores],
        code=exits_with,
        grandchild_ignores=grandchild_ignores and [int(s) for s in grandchild_ignores],
        ready=write,
    )
    process = await spawn_exec(
        [sys.executable, "-c", program], environment=os.environ, inherit=[write]
    )
    os.close(write)
    try:
        async with trio.lowlevel.FdStream(read) as ready:
            for _ in range(1 if grandchild_ignores is None else 2):
                assert await ready.receive_some(1)
        yield process
    finally:
        await stop(process, StopPlan(timeout=0))
        process.close()


async def pause(process: Process) -> None:
    """Send SIGSTOP and wait until it takes effect, before a SIGTERM could."""
    process.signal(signal.SIGSTOP)
    if isinstance(process, ChildProcess):
        how = os.WSTOPPED | os.WNOWAIT
        await trio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, how)


fake_and_real = pytest.mark.parametrize("make", [fake, real])
TERM, KILL = signal.SIGTERM, signal.SIGKILL


def is_process(process: Process) -> Process:
    """Mypy checks that both classes implement the `Protocol`."""
    return process


_checked: tuple[Callable[[FakeProcess], Process], Callable[[ChildProcess], Process]] = (
    is_process,
    is_process,
)


@fake_and_real
@pytest.mark.parametrize(
    ("ignores", "returncode"),
    [
        pytest.param([], -TERM, id="obeys"),
        pytest.param([TERM], -KILL, id="ignores SIGTERM"),
        pytest.param([TERM, signal.SIGCONT], -KILL, id="ignores all that it can"),
    ],
)
async def test_stop_signals_then_kills_then_reaps(
    make: Make, ignores: list[int], returncode: int
) -> None:
    async with make(ignores) as process:
        assert process.returncode is None
        assert not process.is_gone
        await stop(process, StopPlan(timeout=0.1 if ignores else 30))
        assert process.returncode == returncode
        assert process.is_gone


@fake_and_real
async def test_stop_sends_signal_of_plan(make: Make) -> None:
    async with make([TERM]) as process:
        await stop(process, StopPlan(signal=signal.SIGINT, timeout=30))
        assert process.returncode in (-signal.SIGINT, 1)  # Python: KeyboardInterrupt


@fake_and_real
async def test_stop_resumes_paused_process(make: Make) -> None:
    async with make() as process:
        await pause(process)
        await stop(process, StopPlan(timeout=30))
        assert process.returncode == -TERM


@fake_and_real
async def test_paused_process_handles_only_sigkill(make: Make) -> None:
    async with make() as process:
        await pause(process)
        process.signal(TERM)
        with trio.move_on_after(0.05) as scope:
            await process.wait()
        assert scope.cancelled_caught
        process.signal(KILL)
        assert await process.wait() == -KILL


@fake_and_real
async def test_stop_of_exited_process_does_nothing(make: Make) -> None:
    async with make() as process:
        await stop(process, StopPlan())
        await stop(process, StopPlan(signal=signal.SIGINT))
        assert process.returncode == -TERM
        process.signal(TERM)  # nobody is hit


@fake_and_real
@pytest.mark.parametrize("code", [0, 1, 77, 255])
async def test_wait_returns_exit_code(make: Make, code: int) -> None:
    async with make(exits_with=code) as process:
        assert await process.wait() == code
        assert await process.wait() == code  # as often as one asks
        await stop(process, StopPlan())  # too late to change anything
        assert process.returncode == code
        assert process.is_gone


@fake_and_real
async def test_returncode_is_none_before_wait(make: Make) -> None:
    """Only `wait` reaps, so a number can be reused only after that."""
    async with make(exits_with=3) as process:
        assert process.returncode is None
        assert not process.is_gone
        await process.wait_gone()
        assert process.returncode == 3


@fake_and_real
async def test_stop_kills_grandchild_left_in_group(make: Make) -> None:
    """Its parent exits on its own; the group is gone only with the grandchild."""
    async with make(exits_with=5, grandchild_ignores=[]) as process:
        assert await process.wait() == 5
        assert not process.is_gone
        with trio.move_on_after(0.05) as scope:
            await process.wait_gone()
        assert scope.cancelled_caught
        await stop(process, StopPlan(timeout=30))
        assert process.is_gone
        assert process.returncode == 5


@fake_and_real
async def test_stop_kills_grandchild_that_ignores_signal(make: Make) -> None:
    async with make(grandchild_ignores=[TERM]) as process:
        await stop(process, StopPlan(timeout=0.1))
        assert process.is_gone
        assert process.returncode == -TERM  # the process itself obeyed


@fake_and_real
async def test_stop_is_shielded_from_cancellation(make: Make) -> None:
    async with make([TERM]) as process:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stop(process, StopPlan(timeout=0.05))
        assert process.is_gone
        assert process.returncode == -KILL


@fake_and_real
async def test_wait_cancelled_has_no_effect(make: Make) -> None:
    async with make() as process:
        for wait in (process.wait, process.wait_gone):
            with trio.move_on_after(0.01):
                await wait()
        assert process.returncode is None
        process.signal(TERM)
        assert await process.wait() == -TERM


@fake_and_real
async def test_stop_expired_deadline_kills_immediately(make: Make) -> None:
    """Both the current stop and later ones."""
    stop_deadline = StopDeadline()
    plan = StopPlan(timeout=3600)
    async with make([TERM]) as first, make([TERM]) as second:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop, first, plan, stop_deadline)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not first.is_gone
                stop_deadline.expire()
            await stop(second, plan, stop_deadline)
        assert first.returncode == second.returncode == -KILL


async def test_wait_exit_status_reaped_elsewhere_is_255() -> None:
    """The process is gone in any case."""
    async with real(exits_with=3) as process:
        await trio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, os.WEXITED)
        assert await process.wait() == 255
        assert process.is_gone


# Exact times, which only the fake can tell.


@in_virtual_time
async def test_stop_kills_exactly_after_timeout() -> None:
    process = FakeProcess(ignores=[TERM])
    await stop(process, StopPlan(timeout=10))
    assert process.signals == [TERM, signal.SIGCONT, KILL]
    assert trio.current_time() == 10


@in_virtual_time
async def test_stop_in_time_sends_no_sigkill() -> None:
    process = FakeProcess(stopping_takes=9.5)
    await stop(process, StopPlan(timeout=10))
    assert process.signals == [TERM, signal.SIGCONT]
    assert trio.current_time() == 9.5


@in_virtual_time
async def test_stop_waits_for_uninterruptible_process() -> None:
    process = FakeProcess(ignores=[TERM, KILL])

    async def let_go() -> None:
        await trio.sleep(500)
        process.exit(-KILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        await stop(process, StopPlan(timeout=10))
        assert process.is_gone
        assert trio.current_time() == 500
    assert process.signals.count(KILL) > 2


@in_virtual_time
async def test_stop_deadline_expiring_in_the_middle_kills_then() -> None:
    process, stop_deadline = FakeProcess(ignores=[TERM]), StopDeadline()

    async def lose() -> None:
        await trio.sleep(3)
        stop_deadline.expire()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        await stop(process, StopPlan(timeout=10), stop_deadline)
    assert trio.current_time() == 3
    assert stop_deadline.has_expired


@in_virtual_time
async def test_stop_deadline_is_not_extended_by_a_later_limit() -> None:
    process, stop_deadline = FakeProcess(ignores=[TERM]), StopDeadline()
    stop_deadline.limit(trio.current_time() + 5)
    stop_deadline.limit(trio.current_time() + 8)

    await stop(process, StopPlan(timeout=10), stop_deadline)

    assert trio.current_time() == 5


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (None, "not started"),
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-34, "killed by SIGRTMIN"),
        (-40, "killed by signal 40"),
    ],
)
def test_describe_exit(returncode: int | None, words: str) -> None:
    assert describe_exit(returncode) == words
