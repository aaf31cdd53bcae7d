"""Test what a timetable accepts, and what goes with it."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor import (
    Application,
    Command,
    RestartPolicy,
    Schedule,
    Service,
    SpecError,
    SyncWorker,
    Timetable,
)


def work(worker: SyncWorker) -> None: ...


@pytest.mark.parametrize(
    ("options", "field", "problem"),
    [
        ({}, "every", "either every or cron"),
        ({"every": 5, "cron": "* * * * *"}, "every", "either every or cron"),
        ({"every": 0}, "every", "expected"),
        ({"every": "5"}, "every", "expected"),
        ({"every": float("nan")}, "every", "expected"),
        ({"cron": "* * *"}, "cron", "crontab"),
        ({"cron": 5}, "cron", "expected a string"),
        ({"cron": "0 0 30 2 *"}, "cron", "crontab"),
        ({"cron": "* * * * *", "timezone": "Europe/Wien"}, "timezone", "no time zone"),
        ({"cron": "* * * * *", "timezone": "../x"}, "timezone", "no time zone"),
        ({"every": 5, "timezone": "UTC"}, "timezone", "cron only"),
        ({"every": 5, "jitter": 6}, "jitter", "at most every"),
        ({"every": 5, "timeout": -1}, "timeout", "expected"),
        ({"every": 5, "overlap": "skipp"}, "overlap", "'skip'"),
        ({"every": 5, "catch_up": 1}, "catch_up", "expected"),
    ],
)
def test_mistake_names_its_option(
    options: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(SpecError) as caught:
        Timetable(**options)
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_schedule_declares_a_service_or_a_command() -> None:
    service = Schedule("tidy", work, every=60, backend="sync", nice=5)
    command = Schedule("nightly", ["./backup"], cron="0 3 * * *", timezone="UTC")

    assert isinstance(service, Service)
    assert service.schedule == Timetable(every=60)
    assert isinstance(command, Command)
    assert str(command.schedule) == "0 3 * * * (UTC)"


def test_run_is_repeated_on_request_only() -> None:
    once = Command("a", ["a"], schedule=Timetable(every=60))
    again = Command("a", ["a"], schedule=Timetable(every=60), restart="on-failure")

    assert once.rules.policy is RestartPolicy.NEVER
    assert again.rules.policy is RestartPolicy.ON_FAILURE


@pytest.mark.parametrize("value", [60, "@daily", {"every": 60}, True])
def test_schedule_is_a_timetable(value: Any) -> None:
    with pytest.raises(SpecError, match="Timetable"):
        Command("a", ["a"], schedule=value)


def test_nothing_can_wait_for_scheduled_service() -> None:
    tick = Schedule("tick", ["true"], every=60)
    with pytest.raises(SpecError, match="has a schedule"):
        Application([tick, Command("web", ["a"], depends_on={"tick": "ready"})])


def test_scheduled_service_is_not_significant() -> None:
    with pytest.raises(SpecError, match="schedule"):
        Schedule("tick", ["true"], every=60, significant=True)
