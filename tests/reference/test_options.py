"""The page of options shows each option of each class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from trio_supervisor.application import (
    Application,
    Command,
    Group,
    Listen,
    Probe,
    Service,
)
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.reference.options import page


def section(title: str) -> dict[str, str]:
    """Return the row of each option in the section *title*."""
    _, _, text = page().partition(f"\n## {title}\n")
    rows = [line for line in text.partition("\n## ")[0].splitlines() if "| `" in line]
    return {row.split("`")[1]: row for row in rows}


@pytest.mark.parametrize(
    ("make", "titles"),
    [
        (Application, ["Application"]),
        (Group, ["Group"]),
        (Service, ["Service and Command", "Service"]),
        (Command, ["Service and Command", "Command"]),
        (Listen, ["Listen"]),
        (Backoff, ["Backoff"]),
    ],
)
def test_every_parameter_has_a_row(make: Callable[..., Any], titles: list[str]) -> None:
    shown = {name for title in titles for name in section(title)}
    assert shown == set(inspect.signature(make).parameters)


@pytest.mark.parametrize(
    ("make", "asked"),
    [(Probe.http, "url"), (Probe.tcp, "address"), (Probe.command, "arguments")],
)
def test_every_parameter_of_a_probe_has_a_row(
    make: Callable[..., Any], asked: str
) -> None:
    assert set(inspect.signature(make).parameters) - {asked} <= section("Probe").keys()


def test_a_row_has_type_default_unit_and_limits() -> None:
    row = section("Service and Command")["max_lifetime"]
    assert row.startswith(
        "| `max_lifetime` | <code>float &#124; None</code> | `None` | s | Age at which"
    )
    assert row.endswith("At least 0.1. |")


def test_choices_are_shown_as_the_type() -> None:
    row = section("Service and Command")["kill_mode"]
    assert '<code>"group" &#124; "leader"</code> | `"group"`' in row


def test_choices_of_a_list_are_shown_with_the_meaning() -> None:
    assert 'Any of `"restart"`, `"reload"`,' in section("Service and Command")["may"]


def test_an_option_that_a_command_declares_again_is_in_its_own_table() -> None:
    assert section("Command")["overlap"] != section("Service and Command")["overlap"]
    assert "stop_timeout" not in section("Command")
