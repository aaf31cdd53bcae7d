"""Test the options that limit a worker and the processes that it starts."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor import Command
from trio_supervisor.errors import SpecError


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [
        ("memory_max", "512 MiB", 512 * 2**20),
        ("memory_high", 1000, 1000),
        ("cpu_max", 2, 2.0),
        ("cpu_max", 0.01, 0.01),
        ("pids_max", 1, 1),
        ("pids_max", None, None),
    ],
)
def test_limit_is_kept_in_its_unit(option: str, value: Any, kept: Any) -> None:
    assert getattr(Command("a", ["a"], **{option: value}), option) == kept


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("memory_max", "much", "a size such as"),
        ("memory_max", 0, "1 or more"),
        ("memory_high", True, "number"),
        ("cpu_max", 0, "0.01 to 8192"),
        ("cpu_max", float("nan"), "0.01 to 8192"),
        ("cpu_max", "1", "a number of processors such as 1.5"),
        ("cpu_max", True, "a number of processors such as 1.5"),
        ("pids_max", 0, "1 or more"),
        ("pids_max", 2**22 + 1, "4194304 or less"),
    ],
)
def test_invalid_limit_is_an_error_of_its_option(
    option: str, value: Any, problem: str
) -> None:
    with pytest.raises(SpecError) as caught:
        Command("a", ["a"], **{option: value})
    assert caught.value.field == option
    assert problem in str(caught.value)


def test_kernel_reclaims_before_it_kills() -> None:
    with pytest.raises(SpecError) as caught:
        Command("a", ["a"], memory_high=2, memory_max=1)
    assert str(caught.value) == "memory_high: 2 is more than memory_max, 1"
