"""Test the lines of block characters."""

from __future__ import annotations

import pytest

from trio_supervisor.cli.top.sparkline import (
    cpu_sparkline,
    memory_sparkline,
    sparkline,
)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "    "),
        ([0.0], "   ▁"),
        ([0.0, None, 1.0], " ▁ █"),
        ([9.0, 0.0, 0.5, 1.0, 2.0], "▁▅██"),
        ([-1.0], "   ▁"),
    ],
)
def test_sparkline_shows_the_last_values(values: list[float | None], text: str) -> None:
    assert sparkline(values, 4, 0.0, 1.0) == text


def test_sparkline_with_equal_bounds_draws_the_lowest() -> None:
    assert sparkline([3.0, 3.0], 2, 3.0, 3.0) == "▁▁"


def test_cpu_sparkline_shows_share_of_one_processor() -> None:
    assert cpu_sparkline([None, 0.0, 0.5, 1.0], 4) == " ▁▅█"
    assert cpu_sparkline([1.0, 4.0], 2) == "▃█"


def test_memory_sparkline_shows_growth_but_no_noise() -> None:
    assert memory_sparkline([100.0, 150.0, 200.0], 3) == "▁▅█"
    assert memory_sparkline([1000.0, 1001.0, 1000.0], 3) == "▁▁▁"
    assert memory_sparkline([None], 3) == "   "
