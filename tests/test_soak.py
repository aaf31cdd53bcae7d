"""What a soak calls growth, and one short soak; ``nox -s soak`` takes longer."""

from __future__ import annotations

import random
import sys

import pytest

from tests.soak.figures import MEBIBYTE, Series
from tests.soak.rounds import run_soak


def series_of(name: str, values: list[float]) -> Series:
    """Return the series of a figure that was taken every 4 s."""
    series = Series()
    for number, value in enumerate(values):
        series.add(4.0 * number, {name: value})
    return series


def test_steady_growth_is_named() -> None:
    values = [40.0 * MEBIBYTE + 0.1 * MEBIBYTE * number for number in range(150)]
    assert series_of("controller: memory", values).growing() == [
        "controller: memory grew by 7.4 MiB in 296 s, from 47.5 to 54.9"
    ]
    leak = [50.0 + number // 10 for number in range(150)]
    (text,) = series_of("supervisor: descriptors", leak).growing()
    assert text.startswith("supervisor: descriptors grew by 7.")


def test_noise_and_warm_up_are_no_growth() -> None:
    chance = random.Random(7)
    noise = [50 + chance.gauss(0, 5) for _ in range(150)]
    assert series_of("controller: descriptors", noise).growing() == []
    warm_up = [MEBIBYTE * (60 - 20 * 0.95**number) for number in range(150)]
    assert series_of("controller: memory", warm_up).growing() == []
    peak = [10.0] * 140 + [500.0] * 10
    assert series_of("files", peak).growing() == []


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_soak_takes_all_figures() -> None:
    said: list[str] = []
    series = run_soak(seed=1, is_over=lambda number: number >= 1, say=said.append)
    roles = {name.partition(": ")[0] for name in series.points}
    assert {"controller", "supervisor", "guardian", "fork server"} <= roles
    assert {"files", "processes"} <= roles
    assert "nothing has grown" in said[-1]
