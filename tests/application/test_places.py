"""Test that errors name the place of a declaration."""

from __future__ import annotations

import pytest

from trio_supervisor.application.places import located
from trio_supervisor.errors import SpecError

PLACES = {
    "services[0].children[1]": "a.toml, line 3: services.web",
    "services[0].children[1].arguments": "a.toml, line 4: services.web.command",
    "stop_timeout": "a.toml, line 1: stop_timeout",
}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (
            "services[0].children[1].arguments[0]",
            "a.toml, line 4: services.web.command[0]",
        ),
        ("services[0].children[1].nice", "a.toml, line 3: services.web.nice"),
        ("stop_timeout", "a.toml, line 1: stop_timeout"),
        ("services[7].nice", "services[7].nice"),
        ("", ""),
    ],
)
def test_located_error_names_file_and_line(field: str, expected: str) -> None:
    assert located(SpecError(field, "is bad"), PLACES).field == expected


def test_error_without_places_stays_as_it_is() -> None:
    error = SpecError("services[0].nice", "is bad")
    assert located(error, {}) is error
