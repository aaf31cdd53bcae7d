"""Test how often a receiver that fails is tried, and what the log says of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
import trio

from trio_supervisor.controller.telemetry import delivery as delivery_module
from trio_supervisor.controller.telemetry.delivery import Delivery, Refusal
from trio_supervisor.testing import in_virtual_time


class Thread:
    """Stands for the thread of an attempt; threads know nothing of virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: float = 0.0) -> None:
        self.takes = takes
        self.moments: list[float] = []
        monkeypatch.setattr(delivery_module, "run_in_thread", self)

    async def __call__(
        self, function: Callable[[], str], *, abandon_on_cancel: bool
    ) -> str:
        assert abandon_on_cancel
        self.moments.append(trio.current_time())
        await trio.sleep(self.takes)
        return function()


@in_virtual_time
async def test_failure_is_logged_once_with_growing_delays(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Thread(monkeypatch)
    caplog.set_level(logging.INFO)
    delivery = Delivery("metrics", "http://a:4318")
    assert delivery.delay == 0
    delays = []
    for _ in range(8):
        assert not await delivery.send(lambda: "Connection refused")
        delays.append(delivery.delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert await delivery.send(str)
    assert delivery.delay == 0
    assert [record.getMessage() for record in caplog.records] == [
        "metrics are not exported to http://a:4318: Connection refused; retrying "
        "(logged once)",
        "metrics are exported to http://a:4318 again, after 8 failures",
    ]


@in_virtual_time
async def test_refusal_is_of_the_last_attempt_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Thread(monkeypatch)
    delivery = Delivery("spans", "http://a:4318")
    assert not await delivery.send(lambda: Refusal("code: 400, reason: Bad Request"))
    assert delivery.is_refused
    assert not await delivery.send(lambda: "Connection refused")
    assert not delivery.is_refused


@in_virtual_time
async def test_attempt_that_was_cancelled_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it was to send is kept."""
    Thread(monkeypatch, takes=10)
    delivery = Delivery("spans", "http://a:4318")
    assert not await delivery.send(lambda: Refusal("code: 400, reason: Bad Request"))
    with trio.move_on_after(1) as scope:
        await delivery.send(str)
    assert scope.cancelled_caught
    assert not delivery.is_refused


@in_virtual_time
async def test_bug_in_an_export_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    Thread(monkeypatch)
    delivery = Delivery("metrics", "http://a")
    assert not await delivery.send(lambda: str(1 // 0))
    assert delivery.delay == 1


@in_virtual_time
@pytest.mark.parametrize(("failures", "takes"), [(0, 3), (1, 1)])
async def test_last_attempt_is_bounded(
    failures: int, takes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = Thread(monkeypatch)
    delivery = Delivery("metrics", "http://a")
    for _ in range(failures):
        await delivery.send(lambda: "refused")
    thread.takes = 60
    began = trio.current_time()
    await delivery.finish(partial(delivery.send, str), 3)
    assert trio.current_time() - began == takes


@in_virtual_time
async def test_attempt_waits_for_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread = Thread(monkeypatch, takes=2)
    delivery = Delivery("metrics", "http://a")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.send, str)
        nursery.start_soon(delivery.send, str)
    assert [moment - began for moment in thread.moments] == [0, 2]
