"""Test that steps are measured and that nothing else changes."""

from __future__ import annotations

import time

import pytest
import trio

from trio_supervisor.supervisor.timed_steps import time_steps


async def test_each_step_is_measured_and_the_result_returned() -> None:
    steps: list[float] = []

    async def work() -> str:
        time.sleep(0.05)  # noqa: ASYNC251 - this is what is measured
        await trio.sleep(0.1)
        return "done"

    assert await time_steps(work(), steps.append) == "done"
    assert steps[0] >= 0.05
    assert max(steps[1:]) < 0.05


async def test_exceptions_and_cancellations_pass_through() -> None:
    was_cancelled = False

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("lost")

    async def wait() -> None:
        nonlocal was_cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            was_cancelled = True
            raise

    with pytest.raises(LookupError, match="lost"):
        await time_steps(fail(), lambda seconds: None)
    with trio.move_on_after(0.01) as scope:
        await time_steps(wait(), lambda seconds: None)
    assert scope.cancelled_caught
    assert was_cancelled


async def test_caught_exception_does_not_end_the_coroutine() -> None:
    async def work() -> int:
        with trio.move_on_after(0.01):
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return 1

    assert await time_steps(work(), lambda seconds: None) == 1
