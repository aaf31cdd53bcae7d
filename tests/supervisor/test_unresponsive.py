"""When unresponsive workers are given up (virtual time)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import trio
from attrs import define, field

from trio_supervisor.errors import UnknownOperationError
from trio_supervisor.supervisor.unresponsive import (
    ANSWER_WITHIN,
    InspectWorker,
    diagnose_blockage,
    find_blockage,
    inspect_twice,
    wait_blocked,
)
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.codec import parse_result
from trio_supervisor.wire.diagnosis import Certainty, Diagnosis, Severity
from trio_supervisor.wire.json_tree import Object

STACKS = (
    "Stack (most recent call first):\n"
    '  File "/app/service.py", line 9 in work\n'
    "\n"
    "Stack (most recent call first):\n"
    '  File "/python/threading.py", line 1 in wait\n'
    '  File "/python/threading.py", line 2 in _bootstrap'
)
STOPPED = {"way": "kernel", "data": "it is stopped, as by SIGSTOP: nothing in it runs"}


def held(asked: int, text: str = STACKS) -> Object:
    """What is seen of a process in which a thread has so often asked in vain."""
    return {"way": "faulthandler", "data": text, "switches": {"7": 3, "8": asked}}


@define(eq=False)
class Worker:
    """A worker that answers pings after so long [s]; None: never."""

    answers_after: float | None = None
    refuses: bool = False
    pings: list[float] = field(factory=list)
    heard_at: float = -1.0

    async def call(self, do: str, arguments: Object) -> Object:
        assert (do, arguments) == ("ping", {})
        self.pings.append(trio.current_time())
        if self.answers_after is None:
            await trio.sleep_forever()
        else:
            await trio.sleep(self.answers_after)
        self.heard_at = trio.current_time()
        if self.refuses:
            raise UnknownOperationError("no pings here")
        return {}


def looking(see: Callable[[int], Object]) -> tuple[InspectWorker, list[float]]:
    """What looks from outside, and when it did; the n-th look sees ``see(n)``."""
    looks: list[float] = []
    numbers: Iterator[int] = count()

    async def look() -> Object:
        await trio.lowlevel.checkpoint()
        looks.append(trio.current_time())
        return see(next(numbers))

    return look, looks


@in_virtual_time
async def test_stopped_worker_fails_after_ping_and_two_samples() -> None:
    worker = Worker()
    look, looks = looking(lambda number: STOPPED)

    found = await wait_blocked(worker, look)

    assert (found.way, found.text) == ("kernel", STOPPED["data"])
    assert worker.pings == [ANSWER_WITHIN]
    assert looks == [2 * ANSWER_WITHIN, 3 * ANSWER_WITHIN]
    assert trio.current_time() == 3 * ANSWER_WITHIN


@in_virtual_time
async def test_worker_holding_gil_fails() -> None:
    look, _ = looking(lambda number: held(1000 * number))

    found = await wait_blocked(Worker(), look)

    assert found.way == "faulthandler"
    assert found.place == "/app/service.py:9 in work"
    assert (found.is_main, found.duration) == (True, ANSWER_WITHIN)
    assert trio.current_time() == 3 * ANSWER_WITHIN


@pytest.mark.parametrize("refuses", [False, True])
@in_virtual_time
async def test_worker_answering_pings_is_not_sampled(refuses: bool) -> None:
    worker = Worker(answers_after=1.4, refuses=refuses)
    look, looks = looking(lambda number: STOPPED)

    with trio.move_on_after(1000):
        await wait_blocked(worker, look)

    assert trio.current_time() == 1000
    assert looks == []
    assert len(worker.pings) > 300


@in_virtual_time
async def test_worker_sending_data_is_not_pinged() -> None:
    worker = Worker()
    look, looks = looking(lambda number: STOPPED)

    async def speak() -> None:
        while True:
            worker.heard_at = trio.current_time()
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        with trio.move_on_after(1000):
            await wait_blocked(worker, look)
        nursery.cancel_scope.cancel()

    assert (worker.pings, looks) == ([], [])


@in_virtual_time
async def test_throttled_worker_is_sampled_less_often() -> None:
    look, looks = looking(lambda number: held(number))

    with trio.move_on_after(100):
        await wait_blocked(Worker(), look)

    assert trio.current_time() == 100
    assert looks == [3, 4.5, 9, 10.5, 16.5, 18, 27, 28.5, 43.5, 45, 72, 73.5]


@in_virtual_time
async def test_worker_sending_between_samples_is_responsive() -> None:
    worker = Worker()

    def see(number: int) -> Object:
        if number == 1:
            worker.heard_at = trio.current_time()
        return STOPPED

    look, looks = looking(see)

    await wait_blocked(worker, look)

    assert len(looks) == 4


@in_virtual_time
async def test_worker_added_between_samples_is_sampled_once() -> None:
    look, looks = looking(lambda number: STOPPED)
    assert await inspect_twice(look, lambda: False) is None
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param({}, {}, id="nobody can tell"),
        pytest.param({}, STOPPED, id="just stopped"),
        pytest.param(STOPPED, {**STOPPED, "data": "it waits"}, id="another state"),
        pytest.param(STOPPED, {"way": "", "data": ""}, id="it goes on"),
        pytest.param(held(0), held(1000, STACKS + "9"), id="a stack has moved"),
        pytest.param(held(0), held(99), id="nobody asks for the interpreter"),
        pytest.param(
            {**held(0), "switches": {}}, held(1000), id="a thread that is new"
        ),
        pytest.param(
            held(0, STACKS.partition("\n\n")[2]),
            held(1000, STACKS.partition("\n\n")[2]),
            id="all wait",
        ),
    ],
)
def test_runnable_worker_is_not_reported_stopped(
    before: dict[str, Any], now: dict[str, Any]
) -> None:
    assert find_blockage(before, now, 2.0) is None


def test_two_equal_samples_are_certain() -> None:
    assert find_blockage(STOPPED, STOPPED, 2.0) is not None
    assert find_blockage(held(0), held(100), 2.0) is not None


@pytest.mark.parametrize(
    ("now", "kind", "title"),
    [
        pytest.param(STOPPED, "stopped", "as by SIGSTOP", id="stopped"),
        pytest.param(held(500), "stuck", "at /app/service.py:9 in work", id="stuck"),
    ],
)
def test_diagnosis_has_its_types(now: dict[str, Any], kind: str, title: str) -> None:
    seen = find_blockage({**now, "switches": {"8": 0}}, now, 1.5)
    assert seen is not None

    fields = diagnose_blockage(seen, 77, 4.5, "last message 9.0 s ago")

    diagnosis = parse_result(fields, Diagnosis)
    (finding,) = diagnosis.findings
    assert (finding.kind, finding.severity) == (kind, Severity.STANDSTILL)
    assert finding.certainty is Certainty.SURE
    assert title in finding.title
    assert finding.title in diagnosis.data
    assert "no answer within 4.5 s, last message 9.0 s ago" in diagnosis.data
    assert (diagnosis.way, diagnosis.duration) == (now["way"], 4.5)
