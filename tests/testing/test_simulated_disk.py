"""A full disk and a clock that is set, in a simulation."""

from __future__ import annotations

import json

import pytest
import trio

from trio_supervisor import Application, Schedule, Service, Worker
from trio_supervisor.testing import (
    ClockSet,
    DiskFull,
    FaultPlan,
    Killed,
    Simulation,
    in_virtual_time,
    simulated,
)

DAY = 86_400.0


async def serve(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()


def post_mortems(simulation: Simulation) -> list[str]:
    return [path for path in simulation.disk.files if path.endswith(".json")]


@in_virtual_time
async def test_crashes_are_on_the_disk() -> None:
    async with simulated(Application([Service("web", serve)])) as simulation:
        await simulation.controller.wait_ready()
        simulation.kill("web.0")
        await trio.sleep(1)
        (path,) = post_mortems(simulation)
        assert "20260101T000000" in path
        assert json.loads(simulation.disk.files[path])["exit"] == "killed by SIGKILL"


@in_virtual_time
async def test_full_disk_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Workers are restarted, scheduled runs begin, and what can be saved is later."""
    began: list[float] = []

    async def backup(worker: Worker) -> None:
        began.append(trio.current_time())

    application = Application(
        [Service("web", serve), Schedule("backup", ["backup"], every=3600)]
    )
    plan = FaultPlan(((0.0, DiskFull(3.5 * 3600)), (1.0, Killed(0))))
    async with simulated(application, stand_ins={"backup": backup}) as simulation:
        await plan.run(simulation)
        assert simulation.states["web.0"] == "ready"
        assert len(began) == 3
        assert simulation.disk.refused > 1
        assert not simulation.disk.is_full
        simulation.kill("web.0")
        await trio.sleep(60)
        assert len(post_mortems(simulation)) == 1
        # Of the next run: a controller that is restarted now does not repeat the last.
        (due,) = json.loads(simulation.disk.files["/simulated/due-times"]).values()
        assert due - simulation.wall_time() == pytest.approx(0.5 * 3600 - 60, abs=1)
    texts = [record.getMessage() for record in caplog.records]
    assert sum("cannot save when scheduled runs are due" in t for t in texts) == 1
    assert any("cannot save the post-mortem of web.0" in text for text in texts)


@in_virtual_time
async def test_clock_that_is_set_moves_scheduled_runs_only() -> None:
    began: list[float] = []

    async def backup(worker: Worker) -> None:
        began.append(trio.current_time())

    nightly = Schedule("backup", ["backup"], cron="0 0 * * *", timezone="UTC")
    application = Application([Service("web", serve), nightly])
    async with simulated(application, stand_ins={"backup": backup}) as simulation:
        await simulation.controller.wait_ready()
        processes = simulation.processes
        await ClockSet(DAY - 600).strike(simulation)
        await trio.sleep(900)
        assert len(began) == 1
        assert 600 <= began[0] < 700
        await ClockSet(-DAY / 2).strike(simulation)
        await trio.sleep(60)
        assert len(began) == 1
        assert simulation.processes == processes
