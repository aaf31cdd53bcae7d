"""Asking a policy that may do anything."""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest
import trio

from trio_supervisor import MemoryMonitor, Policy, PolicyWorker, WorkerExit
from trio_supervisor.application.worker_policy import HOOKS
from trio_supervisor.supervisor.policy_calls import PolicyCalls
from trio_supervisor.testing import FakeMonitoredWorker, in_virtual_time
from trio_supervisor.wire.messages import Decide

WORKER = PolicyWorker(
    name="web.0", service="web", process_id=7, incarnation=2, crashes=1
)
EXIT = WorkerExit(
    returncode=3,
    reason="exit code 3",
    is_failure=True,
    last_line="oops",
    decision="restart",
)


class Odd:
    """It cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("incomparable")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "odd"


class Recorder(Policy):
    """Records what it is asked; answers *answer*, or raises it."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    async def _answer(self, *asked: Any) -> Any:
        self.asked.append(asked)
        if isinstance(self.answer, BaseException):
            raise self.answer
        if isinstance(self.answer, str) and self.answer == "hang":
            await trio.sleep_forever()
        return self.answer


for hook in HOOKS:
    setattr(Recorder, hook, Recorder._answer)


def decide(hook: str, **details: Any) -> Decide:
    return Decide(hook=hook, worker=attrs.asdict(WORKER), **details)


@in_virtual_time
async def test_it_is_asked_with_typed_facts() -> None:
    policy = Recorder()
    calls = PolicyCalls(policy)
    assert await calls.decide(decide("worker_started")) == ""
    assert await calls.decide(decide("worker_exited", exit=attrs.asdict(EXIT))) == ""
    assert await calls.decide(decide("startup_failed", problem="not ready")) == ""
    assert policy.asked == [(WORKER,), (WORKER, EXIT), (WORKER, "not ready")]


@in_virtual_time
async def test_its_decision_is_returned() -> None:
    assert (
        await PolicyCalls(Recorder("keep")).decide(decide("startup_failed")) == "keep"
    )


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("hang", "took longer than 1 s; it decides nothing"),
        (ValueError("oops"), "failed; it decides nothing"),
        ("explode", "returned 'explode', not one of 'restart', 'keep', None"),
        (["keep"], "returned ['keep'], not one of"),
        (True, "returned True, not one of"),
        (SystemExit(3), "failed; it decides nothing"),
        (KeyboardInterrupt(), "failed; it decides nothing"),
        (Odd(), "returned odd, not one of"),
    ],
)
@in_virtual_time
async def test_a_failure_decides_nothing_and_is_logged(
    answer: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = PolicyCalls(Recorder(answer))
    assert await calls.decide(decide("health_check_failed")) == ""
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    what = "policy Recorder.health_check_failed(web.0) "
    assert record.getMessage().startswith(what + problem)


@in_virtual_time
async def test_it_decides_about_leaks_of_a_memory_monitor() -> None:
    policy, monitor = Recorder("report"), MemoryMonitor()
    PolicyCalls(policy).decide_leaks_of([monitor])
    assert monitor.ask_policy is not None
    assert (
        await monitor.ask_policy(FakeMonitoredWorker(name="web.1"), "grows") == "report"
    )
    ((facts, leak),) = policy.asked
    assert (facts.name, facts.service, leak) == ("web.1", "web", "grows")

    other = MemoryMonitor()
    PolicyCalls(Policy()).decide_leaks_of([other])
    assert other.ask_policy is None
