"""What is wrong with a host."""

from __future__ import annotations

import pytest

from trio_supervisor.policy.host import (
    HostFigures,
    HostLimits,
    parse_pressure,
    problems_of,
)

MIB = 1024**2
PRESSURE = b"""some avg10=12.50 avg60=3.10 avg300=0.90 total=123
full avg10=1.00 avg60=0.00 avg300=0.00 total=4
"""
BUSY = HostFigures(
    memory_available=100 * MIB,
    memory_total=1000 * MIB,
    load=9.0,
    cpu_count=4,
    pressure={"cpu": 80.0, "io": 3.0},
    disk_free=50 * MIB,
)


def test_pressure_is_that_of_some_task() -> None:
    assert parse_pressure(PRESSURE) == 12.5
    assert parse_pressure(b"") is None


def test_each_problem_names_value_and_setting() -> None:
    limits = HostLimits(
        memory_minimum=200 * MIB,
        load_maximum=2,
        pressure_maximum=50,
        disk_minimum=60 * MIB,
    )
    assert list(problems_of(BUSY, limits).values()) == [
        "100 MiB of memory available (memory_minimum=200 MiB)",
        "load 9.0 on 4 processors (load_maximum=2 a processor)",
        "pressure: cpu 80 % (pressure_maximum=50 %)",
        "50 MiB free on the disk (disk_minimum=60 MiB)",
    ]


@pytest.mark.parametrize(
    "limits",
    [
        HostLimits(),
        HostLimits(
            memory_minimum=100 * MIB,
            load_maximum=2.25,
            pressure_maximum=80,
            disk_minimum=50 * MIB,
        ),
    ],
)
def test_what_is_within_its_limit_is_no_problem(limits: HostLimits) -> None:
    assert problems_of(BUSY, limits) == {}


def test_what_is_not_known_is_no_problem() -> None:
    limits = HostLimits(memory_minimum=1, load_maximum=1, disk_minimum=1)
    assert problems_of(HostFigures(), limits) == {}
