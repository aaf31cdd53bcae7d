"""Test what the service manager is told of a canary."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from trio_supervisor import Application, Service, Worker
from trio_supervisor.cli.serve_notify import EventReporter
from trio_supervisor.events import CanaryStarted
from trio_supervisor.process.notify.service_manager import ServiceManager


async def work(worker: Worker) -> None:
    await worker.ready()


@define(eq=False)
class RecordingManager(ServiceManager):
    told: list[Any] = field(factory=list, init=False)

    def status(self, text: str) -> bool:
        self.told.append(text)
        return True

    def extend_timeout(self, seconds: float) -> bool:
        self.told.append(seconds)
        return True


def test_canary_extends_the_timeout_of_a_reload() -> None:
    """By its length: the other workers start and stop after it."""
    service = Service("web", work, startup_timeout=20.0, stop_timeout=7.0)
    manager = RecordingManager()
    reporter = EventReporter(manager, Application([service]))
    event = CanaryStarted(
        name="controller", generation=2, workers=("web.0",), seconds=600.0
    )
    reporter.on_event(event)
    text, seconds = manager.told
    assert text == "comparing the canary of generation 2"
    assert 627 <= seconds < 680
