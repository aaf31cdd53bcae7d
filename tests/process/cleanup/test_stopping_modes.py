"""Stopping with `pre_stop`, and with both kill modes."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan, stop
from trio_supervisor.testing import FakeProcess, in_virtual_time

TERM, CONT, KILL = signal.SIGTERM, signal.SIGCONT, signal.SIGKILL


def pre_stop_of(
    seconds: float, log: list[float]
) -> Callable[[Process], Awaitable[None]]:
    """Return a `pre_stop` of this duration that logs when it has finished."""

    async def pre_stop(process: Process) -> None:
        assert process.returncode is None
        try:
            await trio.sleep(seconds)
        finally:
            log.append(trio.current_time())

    return pre_stop


@in_virtual_time
async def test_stop_sends_signal_after_pre_stop() -> None:
    process, log = FakeProcess(stopping_takes=1.0), list[float]()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(3, log))
    assert log == [3]
    assert process.signals == [TERM, CONT]
    assert trio.current_time() == 4


@in_virtual_time
async def test_stop_pre_stop_counts_towards_timeout() -> None:
    process, log = FakeProcess(ignores=[TERM]), list[float]()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(8, log))
    assert process.signals == [TERM, CONT, KILL]
    assert trio.current_time() == 10


@in_virtual_time
async def test_stop_slow_pre_stop_is_cancelled_and_process_killed() -> None:
    process, log = FakeProcess(), list[float]()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(100, log))
    assert log == [10]
    assert process.signals == [KILL]
    assert process.is_gone


@in_virtual_time
async def test_stop_expired_deadline_cancels_pre_stop() -> None:
    process, log, stop_deadline = FakeProcess(), list[float](), StopDeadline()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            stop, process, StopPlan(timeout=3600), stop_deadline, pre_stop_of(100, log)
        )
        await trio.sleep(2)
        stop_deadline.expire()
    assert log == [2]
    assert trio.current_time() == 2


@pytest.mark.parametrize("grandchild", [None, ()])
@in_virtual_time
async def test_stop_of_exited_process_skips_pre_stop(
    grandchild: tuple[int, ...] | None,
) -> None:
    """Even if other processes of its group are left."""
    process, log = FakeProcess(grandchild_ignores=grandchild), list[float]()
    process.exit(1)
    await process.wait()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(3, log))
    assert log == []
    assert process.is_gone


@in_virtual_time
async def test_stop_cancelled_still_runs_pre_stop() -> None:
    process, log = FakeProcess(), list[float]()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stop(process, StopPlan(timeout=10), None, pre_stop_of(3, log))
    assert log == [3]
    assert process.is_gone


@in_virtual_time
async def test_stop_kill_mode_leader_signals_leader_only() -> None:
    """The leader has to stop the processes that it has started."""
    asked = FakeProcess(grandchild_ignores=())
    await stop(asked, StopPlan(timeout=10, kill_mode="leader"))
    assert asked.returncode == -TERM
    assert asked.signals[:2] == [TERM, CONT]


@in_virtual_time
async def test_stop_kill_mode_leader_kills_group_after_timeout() -> None:
    process = FakeProcess(ignores=[TERM])
    await stop(process, StopPlan(timeout=10, kill_mode="leader"))
    assert process.returncode == -KILL
    assert trio.current_time() == 10
