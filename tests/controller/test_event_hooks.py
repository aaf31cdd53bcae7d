"""Test which events hooks are told, and how often, in virtual time."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
import trio

from trio_supervisor import Exec
from trio_supervisor.controller import event_hooks
from trio_supervisor.controller.event_hooks import _Teller, concerns
from trio_supervisor.controller.event_log import EventLog
from trio_supervisor.controller.events import ServiceScaled
from trio_supervisor.testing import in_virtual_time


def entry(**fields: Any) -> dict[str, Any]:
    known = {"event": "exited", "name": "web.0", "level": "warning", "message": "m"}
    return {**known, **fields}


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({}, {}, True),
        ({}, {"level": "info"}, False),
        ({}, {"level": "debug"}, False),
        ({"level": "info"}, {"level": "info"}, True),
        ({"level": "error"}, {}, False),
        ({"types": ["exited"]}, {"level": "info"}, True),
        ({"types": ["ready"]}, {}, False),
        ({"names": ["web"]}, {}, True),
        ({"names": ["web.1"]}, {}, False),
        ({"names": ["*.0"]}, {}, True),
    ],
)
def test_hook_is_told_of_chosen_events(
    options: Any, fields: dict[str, Any], expected: bool
) -> None:
    assert concerns(Exec(["a"], **options), entry(**fields)) is expected


class Told:
    """A program that fails a number of times."""

    def __init__(self, failures: int = 0, takes: float = 0.0) -> None:
        self.failures, self.takes = failures, takes
        self.moments: list[float] = []

    async def __call__(self, hook: Exec, entry: Any) -> str:
        self.moments.append(trio.current_time())
        await trio.sleep(self.takes)
        self.failures -= 1
        return "exit code 1" if self.failures >= 0 else ""


def play(monkeypatch: pytest.MonkeyPatch, told: Told, count: int) -> None:
    monkeypatch.setattr(event_hooks, "_run", told)

    @in_virtual_time
    async def tell() -> None:
        log = EventLog()
        hook = Exec(["./page"], level="info", timeout=5, most_per_minute=10)
        teller = _Teller(hook, log.subscribe())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(teller.run)
            for _ in range(count):
                log.add(ServiceScaled(name="web", before=1, count=2))
            await teller.wait_idle()
            nursery.cancel_scope.cancel()

    tell()


def test_failed_attempts_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(failures=3)
    play(monkeypatch, told, 1)
    assert [b - a for a, b in pairwise(told.moments)] == [
        1.0,
        2.0,
        4.0,
    ]


def test_failure_is_logged_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    play(monkeypatch, Told(failures=5), 2)
    (record,) = [each for each in caplog.records if each.name.endswith("event_hooks")]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "event hook ./page failed 5 times: exit code 1; event scaled of web is not told"
    )


def test_hook_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(takes=1000)
    play(monkeypatch, told, 1)
    assert len(told.moments) == 5
    assert "no answer within 5 s (timeout)" in caplog.text


def test_events_beyond_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    play(monkeypatch, told, 500)
    assert len(told.moments) == 10
