"""Count calls by result, and connections by kind."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from trio_supervisor.link.foreign_server import PROBE
from trio_supervisor.link.peer import Fields, IncomingCall
from trio_supervisor.policy.metric_totals import ProcessNumbers
from trio_supervisor.policy.metrics import OTHER
from trio_supervisor.policy.supervisor_metrics import (
    CALLS,
    CONNECTIONS,
    DURATION,
    SUPERVISOR_METRICS,
)
from trio_supervisor.process.shared_numbers import local_numbers
from trio_supervisor.supervisor.call_stats import CallStats


def call(do: str, **arguments: Any) -> IncomingCall:
    return cast(IncomingCall, SimpleNamespace(do=do, arguments=arguments))


class Counted:
    """Statistics, and what they have counted."""

    def __init__(self) -> None:
        self._numbers: Any = local_numbers(SUPERVISOR_METRICS.slots)
        self.stats = CallStats(self._numbers)

    def __getitem__(self, key: tuple[str, tuple[str, ...]]) -> float:
        numbers = ProcessNumbers(SUPERVISOR_METRICS)
        numbers.update(self._numbers)
        name, labels = key
        totals = numbers.totals()
        return sum(
            value
            for found, value in totals.items()
            if found[1:3] == (name, labels) and found[3] != "sum"
        )


def test_fields_count_at_once() -> None:
    counted = Counted()
    assert counted.stats.dispatch({"a": 1}, call("ping"), time.perf_counter()) == {
        "a": 1
    }
    assert counted[CALLS, ("ping", "ok")] == 1
    assert counted[DURATION, ("ping",)] == 1


@pytest.mark.parametrize("result", ["ok", "failed", "cancelled"])
async def test_coroutine_counts_when_it_ends(result: str) -> None:
    async def answer() -> Fields:
        if result == "failed":
            raise ValueError("odd")
        if result == "cancelled":
            await trio.sleep_forever()
        return {}

    counted = Counted()
    found: Any = counted.stats.dispatch(answer(), call("restart"), time.perf_counter())
    assert counted[CALLS, ("restart", result)] == 0
    with trio.CancelScope() as scope:
        if result == "cancelled":
            scope.cancel()
        if result == "failed":
            with pytest.raises(ValueError, match="odd"):
                await found
        else:
            await found
    assert counted[CALLS, ("restart", result)] == 1
    assert counted[DURATION, ("restart",)] == 1


def test_streams_have_no_duration() -> None:
    counted = Counted()
    counted.stats.answered(call("events"), time.perf_counter())
    assert counted[CALLS, ("events", "ok")] == 1
    assert counted[DURATION, ("events",)] == 0


def test_unknown_operations_count_together() -> None:
    counted = Counted()
    for do in ("nonsense", "x" * 5000):
        counted.stats.answered(call(do), time.perf_counter(), "failed")
    assert counted[CALLS, (OTHER, "failed")] == 2


def test_probe_of_the_command_line_does_not_count() -> None:
    counted = Counted()
    do, arguments = PROBE
    counted.stats.answered(call(do, **arguments), time.perf_counter(), "failed")
    assert counted[CALLS, ("forward", "failed")] == 0


def test_connection_becomes_a_workers() -> None:
    counted = Counted()
    with counted.stats.connection() as first, counted.stats.connection():
        assert counted[CONNECTIONS, ("client",)] == 2
        first.is_worker()
        assert counted[CONNECTIONS, ("client",)] == 1
        assert counted[CONNECTIONS, ("worker",)] == 1
    assert counted[CONNECTIONS, ("client",)] == 0
    assert counted[CONNECTIONS, ("worker",)] == 0
