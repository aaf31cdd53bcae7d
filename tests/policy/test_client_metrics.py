"""Series of prometheus_client: what does not count, and how they add up."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.client_metrics import (
    MOST_KEPT,
    Labels,
    ProcessReadings,
    Reading,
    Readings,
    Series,
    added,
    families,
    kept,
    key_of,
    parse_key,
)

REQUESTS = Series("counter", "", "requests", "requests_total", (("to", "a"),), "Help")


def gauge(mode: str) -> Series:
    return Series("gauge", mode, "busy", "busy", (), "")


def bucket(bound: str) -> Series:
    return Series("histogram", "", "s", "s_bucket", (("le", bound),), "")


def lines(found: list[tuple[Series, Labels, float]]) -> list[tuple[str, float]]:
    return [
        (",".join([sample.name, *sample.labels.values()]), sample.value)
        for family in families(found, {"service": "web"})
        for sample in family.samples
    ]


def test_key_of_series_is_read_back() -> None:
    key = key_of("counter", "", "requests", "requests_total", (("to", "a"),), "Help")
    assert parse_key(key) == REQUESTS


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 5000,
        json.dumps(["timer", "", "a", "a", [], ""]).encode(),
        json.dumps(["counter", "", "a", "b_total", [], ""]).encode(),
        json.dumps(["counter", "", "a b", "a b_total", [], ""]).encode(),
        json.dumps(["counter", "", "a", "a_total", [["x y", "1"]], ""]).encode(),
        json.dumps(["counter", "", "a", "a_total", [["x", 1], ["x", 2]], ""]).encode(),
        json.dumps(["counter", "", "a", "a_total", [["x"]], ""]).encode(),
        json.dumps(["counter", "", 1, "1_total", [], ""]).encode(),
        json.dumps(["counter", "", "a", "a_total", [], None]).encode(),
        json.dumps(["histogram", "", "a", "a_bucket", [], ""]).encode(),
        json.dumps(["histogram", "", "a", "a_bucket", [["le", "nan"]], ""]).encode(),
        key_of("gauge", "", "trio_supervisor_info", "trio_supervisor_info", (), ""),
    ],
)
def test_key_that_is_not_well_formed_does_not_count(key: bytes) -> None:
    assert parse_key(key) is None


@given(key=st.binary(max_size=60))
def test_any_key_is_survived(key: bytes) -> None:
    parse_key(key)


def test_labels_of_ours_are_kept_apart() -> None:
    labels = (("service", "x"), ("worker", "y"))
    found = parse_key(key_of("gauge", "all", "g", "g", labels, ""))
    assert found is not None
    assert dict(found.labels) == {"exported_service": "x", "exported_worker": "y"}


@given(
    processes=st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6),
        max_size=4,
    )
)
def test_counters_never_go_back(processes: list[list[float]]) -> None:
    gone: Readings = {}
    before = 0.0
    for values in processes:
        process = ProcessReadings()
        for value in values:
            process.update([(REQUESTS, Reading(value))])
            now = sum(v for *_, v in added(gone, [("web.0", process.readings())]))
            assert math.isfinite(now)
            assert now >= before
            before = now
        gone = kept(gone, process.readings(with_gauges=False))


def test_reset_counter_goes_on() -> None:
    process = ProcessReadings()
    found = []
    for value in (100, 3, 5, 0, 2):
        process.update([(REQUESTS, Reading(value))])
        found.append(process.readings()[REQUESTS].value)
    assert found == [100, 103, 105, 105, 107]


def test_sums_of_negative_numbers_shrink() -> None:
    process = ProcessReadings()
    sums = Series("summary", "", "s", "s_sum", (), "")
    for value in (-5.0, -2.0, -7.0):
        process.update([(sums, Reading(value))])
        assert process.readings() == {sums: Reading(value)}


def test_histogram_with_negative_buckets_has_no_sum() -> None:
    sums = Series("histogram", "", "s", "s_sum", (), "")
    readings = {bucket("-1.0"): Reading(1), bucket("+Inf"): Reading(0)}
    found = lines(added({}, [("web.0", {**readings, sums: Reading(-5)})]))
    assert found == [("s_bucket,web,-1.0", 1), ("s_bucket,web,+Inf", 1)]


def test_metrics_of_two_registries_add_up() -> None:
    other = Series("counter", "", "requests", "requests_total", (("to", "a"),), "Other")
    process = ProcessReadings()
    for count in (5, 6):
        process.update([(REQUESTS, Reading(count)), (other, Reading(7))])
    assert process.readings() == {REQUESTS: Reading(13)}


def test_lone_surrogates_become_question_marks() -> None:
    key = key_of("gauge", "all", "g", "g", (("path", "\udc80"),), "\udc80")
    found = parse_key(key)
    assert found is not None
    assert (found.labels, found.help) == ((("path", "?"),), "?")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sum", [("busy,web", 7)]),
        ("livesum", [("busy,web", 7)]),
        ("min", [("busy,web", 3)]),
        ("livemax", [("busy,web", 4)]),
        ("mostrecent", [("busy,web", 3)]),
        ("all", [("busy,web,web.0", 3), ("busy,web,web.1", 4)]),
        ("liveall", [("busy,web,web.0", 3), ("busy,web,web.1", 4)]),
    ],
)
def test_gauges_add_up_by_their_mode(
    mode: str, expected: list[tuple[str, float]]
) -> None:
    series = gauge(mode)
    present = {"web.0": {series: Reading(3, 20)}, "web.1": {series: Reading(4, 10)}}
    assert lines(added({}, present.items())) == expected


def test_two_processes_of_one_name_both_count() -> None:
    """During a reload; a gauge that is shown by worker is that of the latter."""
    old = {REQUESTS: Reading(3), gauge("all"): Reading(1)}
    new = {REQUESTS: Reading(4), gauge("all"): Reading(1)}
    assert lines(added({}, [("web.0", old), ("web.0", new)])) == [
        ("requests_total,web,a", 7),
        ("busy,web,web.0", 1),
    ]


def test_gauges_of_exited_processes_are_not_kept() -> None:
    process = ProcessReadings()
    process.update([(gauge("sum"), Reading(3)), (REQUESTS, Reading(2))])
    assert list(process.readings(with_gauges=False)) == [REQUESTS]


def test_buckets_are_added_up_from_the_least() -> None:
    sums = Series("histogram", "", "s", "s_sum", (), "")
    present: dict[str, Readings] = {
        "web.0": {bucket("+Inf"): Reading(1), bucket("2.0"): Reading(2)},
        "web.1": {bucket("0.5"): Reading(3), sums: Reading(9)},
    }
    assert lines(added({}, present.items())) == [
        ("s_bucket,web,0.5", 3),
        ("s_bucket,web,2.0", 5),
        ("s_bucket,web,+Inf", 6),
        ("s_sum,web", 9),
        ("s_count,web", 6),
    ]


def test_histogram_without_last_bucket_gets_one() -> None:
    """Its process was killed before it had written all keys."""
    found = lines(added({}, [("web.0", {bucket("0.5"): Reading(3)})]))
    assert ("s_bucket,web,+Inf", 3) in found


def test_series_of_exited_processes_are_bounded() -> None:
    many = {
        Series("counter", "", "a", "a_total", (("user", str(number)),), ""): Reading(1)
        for number in range(MOST_KEPT + 5)
    }
    gone = kept({}, many)
    assert len(gone) == MOST_KEPT
    assert next(iter(kept(gone, many).values())) == Reading(2)
