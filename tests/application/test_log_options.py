"""Test the sizes that options of log files accept."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor import Command, SpecError
from trio_supervisor.application.log_options import size_or_none


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, None),
        (1, 1),
        ("1000", 1000),
        ("1000B", 1000),
        ("10 kB", 10_000),
        ("50MB", 50_000_000),
        ("10 MiB", 10 * 2**20),
        ("10M", 10_000_000),
        ("1.5 GiB", 3 * 2**29),
    ],
)
def test_size_in_bytes(value: Any, size: int | None) -> None:
    assert size_or_none(value) == size


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, "", "MB", "10 XB", "-1 MB", "1e9", "0", "9" * 30, [10]]
)
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        Command("a", ["a"], log_file="a", log_max_size=value)
    assert caught.value.field == "log_max_size"


@pytest.mark.parametrize(
    "options",
    [{"log_max_size": 1}, {"log_max_age": 60}, {"log_timestamps": True}],
    ids=str,
)
def test_option_needs_a_file(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="needs log_file"):
        Command("a", ["a"], **options)
    Command("a", ["a"], stderr_log_file="a", **options)


@pytest.mark.parametrize("value", ["kafka", "syslog:udp://a", 5, ["journald"]])
def test_log_to_what_is_no_log_service(value: Any) -> None:
    with pytest.raises(SpecError, match=r"log_to: expected .*, got") as caught:
        Command("a", ["a"], log_to=value)
    assert caught.value.field == "log_to"


def test_log_to_excludes_file_of_standard_output() -> None:
    with pytest.raises(SpecError, match="log_to: cannot be combined with log_file"):
        Command("a", ["a"], log_to="syslog", log_file="a")
    command = Command("a", ["a"], log_to="syslog", stderr_log_file="a")
    assert command.has_own_log
    assert command.log_files == ("a",)
