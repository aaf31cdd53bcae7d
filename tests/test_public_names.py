"""The public face: what can be imported from the package, and where it comes from."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import get_args

import pytest

import trio_supervisor
from trio_supervisor import errors, events
from trio_supervisor.controller import events as all_events


@pytest.mark.parametrize("name", trio_supervisor.__all__)
def test_public_name_is_documented(name: str) -> None:
    found = getattr(trio_supervisor, name)
    assert name in dir(trio_supervisor)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert inspect.getdoc(found)


def test_public_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        getattr(trio_supervisor, "nope")  # noqa: B009 (a type checker refuses it)


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.SupervisorError)
    }
    assert defined <= set(trio_supervisor.__all__)


def test_every_event_is_public() -> None:
    names = {kind.__name__ for kind in get_args(all_events.Event)}
    assert names <= set(events.__all__)
    assert set(events.__all__) - names == {"Event", "event_fields", "log_event"}


def test_importing_the_package_loads_nothing_else() -> None:
    program = "import sys, trio_supervisor; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    ours = {name for name in loaded if name.startswith("trio_supervisor")}
    assert ours == {"trio_supervisor", "trio_supervisor._version"}
    assert not {"trio", "attrs", "cattrs"} & set(loaded)
