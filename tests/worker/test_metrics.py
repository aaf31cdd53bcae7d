"""What a worker counts."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import Counter, Gauge, Histogram, Metrics
from trio_supervisor.process.shared_numbers import (
    local_numbers,
    open_numbers,
    use_numbers,
)
from trio_supervisor.worker.metrics import WorkerMetrics

METRICS = Metrics(
    requests_total=Counter(labels={"method": ["GET", "POST"]}),
    active=Gauge(),
    seconds=Histogram(buckets=[0.1, 1]),
)


def make() -> WorkerMetrics:
    return WorkerMetrics(METRICS, local_numbers(METRICS.slots))


def test_the_reader_sees_each_number() -> None:
    with open_numbers(METRICS.slots) as shared:
        numbers = use_numbers(os.dup(shared.descriptor), METRICS.slots)
        metrics = WorkerMetrics(METRICS, numbers)
        metrics.requests_total.labels(method="POST").inc()
        metrics.requests_total.labels(method="BREW").inc(2)
        metrics.active.set(3)
        metrics.active.dec()
        for value in (0.1, 0.5, 7):
            metrics.seconds.observe(value)
        assert list(shared.read()) == [0, 1, 2, 2, 1, 1, 1, 7.6]
    assert list(shared.read()) == []


def test_blocks() -> None:
    metrics = make()
    seen: list[float] = []

    def fail() -> None:
        with metrics.active.track():
            seen.append(metrics.active.value)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [1]
    assert metrics.active.value == 0
    with metrics.seconds.time():
        pass
    assert metrics.seconds.value == 1


def test_no_count_of_many_threads_is_lost() -> None:
    metrics = make()
    series = metrics.requests_total.labels(method="GET")
    interval = sys.getswitchinterval()

    def count() -> None:
        for _ in range(20_000):
            series.inc()

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert series.value == 80_000


def test_mistakes_are_named() -> None:
    metrics = make()
    with pytest.raises(AttributeError, match=r"'activ'; did you mean active\?"):
        _ = metrics.activ
    with pytest.raises(SpecError, match=r"use \.labels"):
        metrics.requests_total.inc()
    with pytest.raises(SpecError, match="expected the labels method; got verb"):
        metrics.requests_total.labels(verb="GET")
    with pytest.raises(SpecError, match="expected 0 or more, got -1"):
        metrics.requests_total.labels(method="GET").inc(-1)
    with pytest.raises(SpecError, match="expected 0 or more, got nan"):
        metrics.requests_total.labels(method="GET").inc(float("nan"))
    for value in (float("nan"), float("inf"), -1):
        with pytest.raises(SpecError, match="expected 0 or more, got "):
            metrics.seconds.observe(value)
    assert "seconds" in dir(metrics)


def test_a_metric_is_an_attribute_proper() -> None:
    """Found without `__getattr__`, which costs more than the increment."""
    metrics = make()
    assert vars(metrics)["active"] is metrics.active
