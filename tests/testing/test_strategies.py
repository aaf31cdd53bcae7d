"""Test that the toolkit finds what an author forgot, and names it briefly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.errors import NoSuchExample
from hypothesis.stateful import run_state_machine_as_test

from examples.job_queue.service import Queue
from trio_supervisor import Application, Service, Worker
from trio_supervisor.testing import (
    FaultPlan,
    Hangs,
    SupervisorMachine,
    faults,
    in_virtual_time,
    simulated,
)

QUICK = settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class HastyQueue(Queue):
    """Its author acknowledges a job when it is taken."""

    def take(self) -> str | None:
        job = super().take()
        if job is not None:
            self.acknowledge(job)
            self.done.discard(job)
        return job


def loses_jobs(
    make_queue: Callable[[], Queue], settle: float
) -> Callable[[FaultPlan], bool]:
    """Whether a plan makes a queue lose a job within *settle* seconds after it."""

    def loses(plan: FaultPlan) -> bool:
        queue = make_queue()

        async def work(worker: Worker) -> None:
            await worker.ready()
            while not worker.stopping.is_set():
                job = queue.take()
                await trio.sleep(1)
                if job is not None:
                    queue.acknowledge(job)
                    queue.done.add(job)

        @in_virtual_time
        async def run() -> None:
            async with simulated(Application([Service("work", work)])) as simulation:
                for number in range(5):
                    queue.put(f"job {number}")
                await plan.run(simulation)
                await trio.sleep(settle)

        run()
        return len(queue.done) < 5

    return loses


def test_forgotten_lease_is_found_and_shrunk() -> None:
    plan = find(faults(within=5, at_most=3), loses_jobs(HastyQueue, 8), settings=QUICK)

    assert len(plan.steps) <= 2
    assert plan.duration <= 5


def test_queue_with_leases_loses_nothing() -> None:
    few = settings(QUICK, max_examples=25, phases=[Phase.generate])
    with pytest.raises(NoSuchExample):
        find(faults(within=20), loses_jobs(Queue, 200), settings=few)


async def obedient(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()


class Obedient(SupervisorMachine):
    """It is ready in the end after any faults."""

    application = Application([Service("web", obedient, count=2)])


class Fragile(SupervisorMachine):
    """Nothing finds that its worker hangs."""

    application = Application([Service("web", obedient, restart="never")])


def test_machine_of_obedient_workers_passes() -> None:
    run_state_machine_as_test(
        Obedient, settings=settings(QUICK, max_examples=15, stateful_step_count=15)
    )


def test_machine_reports_what_is_not_ready_again() -> None:
    with pytest.raises(AssertionError, match=r"not ready 600 s after the last fault"):
        run_state_machine_as_test(
            Fragile, settings=settings(QUICK, max_examples=30, stateful_step_count=10)
        )


@given(faults(within=5, at_most=2))
@settings(QUICK, max_examples=10)
def test_plans_are_in_order_and_within_limits(plan: FaultPlan) -> None:
    moments = [moment for moment, _ in plan.steps]
    assert moments == sorted(moments)
    assert all(0 <= moment <= 5 for moment in moments)
    assert len(moments) <= 2


@in_virtual_time
async def test_cancelled_plan_leaves_what_has_struck() -> None:
    application = Application([Service("web", obedient, health_check_timeout=None)])
    plan = FaultPlan(((1.0, Hangs(0, 100.0)), (2.0, Hangs(0, 100.0))))
    async with simulated(application) as simulation:
        await simulation.controller.wait_ready()
        with trio.move_on_after(1.5):
            await plan.run(simulation)
        (process,) = simulation.processes
        assert process.is_frozen
