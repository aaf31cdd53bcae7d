"""Test that no job is lost, whatever happens to the workers."""

from __future__ import annotations

import trio
from hypothesis import given, settings

from examples.job_queue.service import application, queue
from trio_supervisor.testing import FaultPlan, faults, in_virtual_time, simulated


@settings(deadline=None)
@given(faults(within=20))
@in_virtual_time
async def test_no_job_is_lost(plan: FaultPlan) -> None:
    """Every job that was accepted is done in the end."""
    queue.__init__()  # type: ignore[misc]  # each example begins anew
    jobs = {f"job {number}" for number in range(10)}
    async with simulated(application) as simulation:
        for job in jobs:
            queue.put(job)
        await plan.run(simulation)
        await trio.sleep(300)
    assert queue.done == jobs
