"""What is done before a process is asked to end, and who of its group is asked."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan, stop
from trio_supervisor.testing import FakeProcess, simulated

TERM, CONT, KILL = signal.SIGTERM, signal.SIGCONT, signal.SIGKILL


def pre_stop_of(
    seconds: float, log: list[float]
) -> Callable[[Process], Awaitable[None]]:
    """Return one that takes so long, and notes when it came to its end."""

    async def pre_stop(process: Process) -> None:
        assert process.returncode is None
        try:
            await trio.sleep(seconds)
        finally:
            log.append(trio.current_time())

    return pre_stop


@simulated
async def test_the_signal_comes_after_what_is_done_before() -> None:
    process, log = FakeProcess(stopping_takes=1.0), list[float]()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(3, log))
    assert log == [3]
    assert process.signals == [TERM, CONT]
    assert trio.current_time() == 4


@simulated
async def test_its_time_is_part_of_the_timeout() -> None:
    process, log = FakeProcess(ignores=[TERM]), list[float]()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(8, log))
    assert process.signals == [TERM, CONT, KILL]
    assert trio.current_time() == 10


@simulated
async def test_one_that_takes_too_long_is_cancelled_and_the_process_killed() -> None:
    process, log = FakeProcess(), list[float]()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(100, log))
    assert log == [10]
    assert process.signals == [KILL]
    assert process.is_gone


@simulated
async def test_lost_patience_waits_for_it_no_longer() -> None:
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
@simulated
async def test_nothing_is_done_before_where_the_process_has_ended_already(
    grandchild: tuple[int, ...] | None,
) -> None:
    """Whatever is left of its group."""
    process, log = FakeProcess(grandchild_ignores=grandchild), list[float]()
    process.exit(1)
    await process.wait()
    await stop(process, StopPlan(timeout=10), None, pre_stop_of(3, log))
    assert log == []
    assert process.is_gone


@simulated
async def test_a_cancelled_stop_does_it_all_the_same() -> None:
    process, log = FakeProcess(), list[float]()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stop(process, StopPlan(timeout=10), None, pre_stop_of(3, log))
    assert log == [3]
    assert process.is_gone


@simulated
async def test_a_leader_is_asked_alone() -> None:
    """What it has started is its own business."""
    asked = FakeProcess(grandchild_ignores=())
    await stop(asked, StopPlan(timeout=10, kill_mode="leader"))
    assert asked.returncode == -TERM
    assert asked.signals[:2] == [TERM, CONT]


@simulated
async def test_a_stubborn_leader_is_killed_after_the_timeout() -> None:
    process = FakeProcess(ignores=[TERM])
    await stop(process, StopPlan(timeout=10, kill_mode="leader"))
    assert process.returncode == -KILL
    assert trio.current_time() == 10
