"""The task that scales, with a controller that is a fake, under virtual time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from trio_supervisor import Autoscale, Counter, Gauge, Metrics, Service, Worker
from trio_supervisor.controller.autoscaling import Autoscaling
from trio_supervisor.errors import UnavailableError
from trio_supervisor.testing import in_virtual_time


async def serve(worker: Worker) -> None:
    """Do nothing."""


class FakeOwner:
    """A controller whose load a test sets; `scale` obeys, or fails."""

    def __init__(self, metric: str = "active") -> None:
        scale = Autoscale(
            minimum=1, maximum=8, metric=metric, per_worker=10, scale_down_after=20
        )
        metrics = Metrics(active=Gauge(), seen_total=Counter())
        self.service = Service("web", serve, count=scale, metrics=metrics)
        other = Service("other", serve)
        self.load = 0.0
        self.problem = ""
        self.is_stopping = False
        self.was_stopped = False
        self.calls: list[tuple[float, int]] = []
        self.metrics = self.verbs = self
        self.taken_over = trio.Event()
        self.units = {
            service.name: SimpleNamespace(service=service, children=[self])
            for service in (self.service, other)
        }

    @property
    def generation(self) -> Any:
        return self

    async def wait_take_over(self) -> None:
        await self.taken_over.wait()

    def sum_of(self, service: str, metric: str) -> float:
        assert service == "web"
        return self.load

    async def scale(self, counts: Mapping[str, int]) -> None:
        self.calls.append((trio.current_time(), counts["web"]))
        if self.problem:
            raise UnavailableError(self.problem)
        self.units["web"].children = [self] * counts["web"]

    @property
    def counts(self) -> list[int]:
        return [count for _, count in self.calls]


@asynccontextmanager
async def scaling(owner: FakeOwner) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Autoscaling(cast(Any, owner)).run)
        yield
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_it_scales_up_at_once_and_down_later() -> None:
    owner = FakeOwner()
    owner.load = 20
    async with scaling(owner):
        await trio.sleep(6)
        assert owner.counts == [3]
        owner.load = 0
        await trio.sleep(18)
        assert owner.counts == [3]
        await trio.sleep(10)
        assert owner.counts == [3, 1]


@in_virtual_time
async def test_the_increase_of_a_counter_is_its_load() -> None:
    owner = FakeOwner("seen_total")
    owner.load = 1000
    async with scaling(owner):
        await trio.sleep(6)
        owner.load += 5 * 14
        await trio.sleep(5)
    assert owner.counts == [2]


@in_virtual_time
async def test_failed_attempts_are_repeated_ever_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner = FakeOwner()
    owner.load, owner.problem = 20, "web.1 exited with code 1; scaled back to web=1"
    async with scaling(owner):
        await trio.sleep(5 * (1 + 2 + 4 + 8) + 1)
        assert [round(moment) for moment, _ in owner.calls] == [5, 15, 35, 75]
        assert "web: not scaled: web.1 exited with code 1" in caplog.text
        owner.problem = ""
        await trio.sleep(5 * 16)
        assert owner.counts == [3] * 5
        owner.load = 30
        await trio.sleep(6)
        assert owner.counts[-1] == 5  # at the usual interval again


@in_virtual_time
async def test_what_was_stopped_by_hand_is_left_alone() -> None:
    owner = FakeOwner()
    owner.load, owner.was_stopped = 30, True
    async with scaling(owner):
        await trio.sleep(60)
        assert owner.counts == []
        owner.was_stopped = False
        await trio.sleep(6)
        assert owner.counts == [5]


@in_virtual_time
async def test_loads_that_are_no_numbers_are_ignored() -> None:
    owner = FakeOwner()
    owner.load = float("inf")
    async with scaling(owner):
        await trio.sleep(6)
        owner.load = float("nan")
        await trio.sleep(6)
        assert owner.counts == []
        owner.load = 20
        await trio.sleep(6)
        assert owner.counts == [3]


@in_virtual_time
async def test_a_service_without_workers_gets_some_again() -> None:
    owner = FakeOwner()
    owner.units["web"].children = []
    async with scaling(owner):
        await trio.sleep(6)
    assert owner.counts == [1]


@in_virtual_time
async def test_a_shutdown_ends_it() -> None:
    owner = FakeOwner()
    owner.load, owner.is_stopping = 50, True
    async with scaling(owner):
        await trio.sleep(60)
    assert owner.counts == []


@in_virtual_time
async def test_the_next_generation_has_its_own_rule() -> None:
    owner = FakeOwner()
    async with scaling(owner):
        owner.units = {}
        owner.taken_over.set()
        owner.taken_over = trio.Event()
        owner.load = 50
        await trio.sleep(60)
    assert owner.counts == []


@in_virtual_time
async def test_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    owner = FakeOwner()
    owner.load = 14
    async with scaling(owner):
        await trio.sleep(6)
    (record,) = caplog.records
    assert record.getMessage() == (
        "web: active is 14, 140 % of what 1 worker can bear (target 70 %); scaling to 2"
    )
