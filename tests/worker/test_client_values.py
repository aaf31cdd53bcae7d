"""Compare with prometheus_client's own multiprocess mode, after any operations."""

from __future__ import annotations

import math
import os
import tempfile
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Summary,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from trio_supervisor.policy.client_metrics import (
    ProcessReadings,
    Reading,
    Readings,
    added,
    families,
    parse_key,
)
from trio_supervisor.process.shared_values import CAPACITY, ValueTable, entries_of
from trio_supervisor.worker.client_values import count_in

library_values: Any = MultiProcessValue
library_collector: Any = MultiProcessCollector
MODES = ("min", "livemax", "sum", "livesum", "all")


@pytest.fixture(autouse=True)
def restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the library and its default registry as they were."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr("prometheus_client.REGISTRY", CollectorRegistry())


def make_metrics(registry: CollectorRegistry) -> list[Any]:
    modes: list[Any] = list(MODES)
    return [
        Counter("served", "Served.", ["to"], registry=registry),
        Summary("size_bytes", "Size.", registry=registry),
        Histogram("wait_seconds", "Wait.", ["to"], buckets=[1, 2], registry=registry),
        *(
            Gauge(f"g_{mode}", "Gauge.", multiprocess_mode=mode, registry=registry)
            for mode in modes
        ),
    ]


def count(metrics: list[Any], index: int, amount: float) -> None:
    metric = metrics[index % len(metrics)]
    if isinstance(metric, Counter):
        metric.labels(f"a{amount % 2:.0f}").inc(amount)
    elif isinstance(metric, Histogram):
        metric.labels("x\n\"y'").observe(amount)
    elif isinstance(metric, Summary):
        metric.observe(amount)
    elif amount < 2:
        metric.dec(amount)
    else:
        metric.set(amount)


def readings_of(table: ValueTable) -> Readings:
    process = ProcessReadings()
    pairs = [
        (series, Reading(table.numbers[place], table.numbers[place + 1]))
        for key, place, _ in entries_of(bytes(table._bytes))
        if (series := parse_key(key)) is not None
    ]
    process.update(pairs)
    return process.readings()


def ours(tables: dict[str, ValueTable]) -> set[tuple[Any, ...]]:
    present = {name: readings_of(table) for name, table in tables.items()}
    return {
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for family in families(added({}, present.items()), {})
        for sample in family.samples
    }


def theirs(path: str) -> set[tuple[Any, ...]]:
    registry = CollectorRegistry()
    library_collector(registry, path)
    return {
        (
            sample.name,
            frozenset(
                ("worker" if name == "pid" else name, value)
                for name, value in sample.labels.items()
            ),
            sample.value,
        )
        for family in registry.collect()
        for sample in family.samples
    }


def repeat(history: list[tuple[int, float]]) -> None:
    metrics = make_metrics(CollectorRegistry())
    for operation in history:
        count(metrics, *operation)


amounts = st.integers(0, 9).map(float)
histories = st.lists(st.tuples(st.integers(0, 7), amounts), max_size=12)


@given(processes=st.lists(histories, max_size=3))
def test_same_numbers_as_own_multiprocess_mode(
    processes: list[list[tuple[int, float]]],
) -> None:
    changed: Any = values
    tables: dict[str, ValueTable] = {}
    with tempfile.TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", path)
        for number, history in enumerate(processes):
            name = f"web.{number}"
            table = tables[name] = ValueTable(bytearray(CAPACITY))
            count_in(table)
            repeat(history)
            changed.ValueClass = library_values(partial(str, name))
            repeat(history)
        try:
            assert ours(tables) == theirs(path)
        finally:
            changed.close_all_multiprocess_files()


def test_metrics_made_before_start_anew_and_gauges_keep_their_value() -> None:
    """The parent counted before: its forked workers must not count that again."""
    import prometheus_client

    registry = prometheus_client.REGISTRY
    served = Counter("served", "Served.", ["to"], registry=registry)
    version = Gauge("version", "Version.", ["version"], registry=registry)
    plain = Counter("plain", "Plain.", registry=registry)
    Info("build", "Described.", registry=registry).info({"a": "b"})
    child = served.labels("a")
    child.inc(5)
    version.labels("1.2").set(1)
    table = ValueTable(bytearray(CAPACITY))
    count_in(table)
    child.inc(2)
    plain.inc()
    found = {series.sample: reading for series, reading in readings_of(table).items()}
    assert found["served_total"].value == 2
    assert found["plain_total"].value == 1
    assert found["version"].value == 1


def test_most_recent_gauge_keeps_its_time() -> None:
    table = ValueTable(bytearray(CAPACITY))
    count_in(table)
    gauge = Gauge("g", "G.", multiprocess_mode="mostrecent", registry=None)
    gauge.set(3)
    [reading] = readings_of(table).values()
    assert reading.value == 3
    assert reading.set_at > 1e9


def test_application_reads_its_own_numbers() -> None:
    """An endpoint of its own that shows this process goes on to work."""
    count_in(ValueTable(bytearray(CAPACITY)))
    registry = CollectorRegistry()
    histogram = Histogram("h", "H.", registry=registry)
    histogram.observe(0.3)
    counter = Counter("c", "C.", registry=registry)
    counter.inc(2, exemplar={"trace_id": "abc"})
    assert registry.get_sample_value("h_sum") == 0.3
    assert registry.get_sample_value("c_total") == 2


def test_series_beyond_the_table_are_counted_locally(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, and no error in the application."""
    table = ValueTable(bytearray(CAPACITY))
    count_in(table)
    counter = Counter("c", "C.", ["user"], registry=None)
    many = [counter.labels("x" * 7000 + str(number)) for number in range(200)]
    for each in many:
        each.inc()
    assert math.isclose(sum(each._value.get() for each in many), 200)
    assert len(readings_of(table)) < 200
    [record] = caplog.records
    assert "c_total and other series without room" in record.message


def test_gauge_with_a_function_is_left_out() -> None:
    import prometheus_client

    early = Gauge("early", "E.", registry=prometheus_client.REGISTRY)
    early.set_function(lambda: 42)
    table = ValueTable(bytearray(CAPACITY))
    count_in(table)
    Gauge("late", "L.", registry=None).set_function(lambda: 42)
    assert readings_of(table) == {}
    [metric] = early.collect()
    assert metric.samples[0].value == 42


def test_forked_child_counts_alone() -> None:
    table = ValueTable(bytearray(CAPACITY))
    count_in(table)
    counter = Counter("c", "C.", registry=None)
    counter.inc(2)
    before = bytes(table._bytes)
    if (child := os.fork()) == 0:
        counter.inc(5)
        is_alone = counter._value.get() == 7 and bytes(table._bytes) == before
        os._exit(not is_alone)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert counter._value.get() == 2
