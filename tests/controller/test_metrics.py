"""What is collected while processes exit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trio_supervisor import Application, Counter, Metrics, Service, Worker
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.metrics import MetricsBank
from trio_supervisor.policy.metric_totals import ProcessNumbers
from trio_supervisor.process.shared_counts import open_counts
from trio_supervisor.process.shared_numbers import use_numbers

METRICS = Metrics(a_total=Counter(), errors_total=Counter())


async def work(worker: Worker) -> None:
    await worker.ready()


APPLICATION = Application(services=[Service("web", work, metrics=METRICS)])


def begin(bank: MetricsBank, process_id: int, count: float, errors: float = 0) -> None:
    shared = open_counts(METRICS.slots, has_values=False)
    assert shared is not None
    [descriptor] = shared.descriptors
    numbers = use_numbers(os.dup(descriptor), METRICS.slots)
    numbers[0], numbers[1] = count, errors
    process = SimpleNamespace(pid=process_id)
    child = SimpleNamespace(service="web", name="web.0", process=process)
    bank.begin(cast(Child, child), APPLICATION.service("web"), shared)


def total(bank: MetricsBank) -> float:
    families = bank.application_families(APPLICATION, per_worker=False)
    return sum(sample.value for each in families for sample in each.samples)


def test_errors_are_those_of_one_present_process() -> None:
    bank = MetricsBank()
    begin(bank, 1, 10, errors=3)
    begin(bank, 2, 5, errors=4)
    assert bank.errors_of(1) == 3
    bank.end(1)
    assert bank.errors_of(1) is None
    assert bank.errors_of(2) == 4
    bank.end(2)


@pytest.mark.parametrize("moment", ["before its read", "after its read"])
def test_exit_during_a_scrape_counts_once(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread collects while the event loop banks: neither twice nor not at all."""
    bank = MetricsBank()
    begin(bank, 1, 10)
    begin(bank, 2, 5)
    exits = [2]
    totals = ProcessNumbers.totals
    update = ProcessNumbers.update

    def exit_now() -> None:
        if exits:
            bank.end(exits.pop())

    def update_first(self: ProcessNumbers, numbers: Sequence[float]) -> None:
        update(self, numbers)
        if moment == "before its read":
            exit_now()

    def totals_first(self: ProcessNumbers, **words: Any) -> dict[Any, float]:
        found = totals(self, **words)
        if moment == "after its read":
            exit_now()
        return found

    monkeypatch.setattr(ProcessNumbers, "update", update_first)
    monkeypatch.setattr(ProcessNumbers, "totals", totals_first)
    assert total(bank) == 15
    assert not exits
    assert total(bank) == 15
    bank.end(1)
    assert total(bank) == 15
