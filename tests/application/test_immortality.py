"""Which interpreters can follow ``immortal_preload``."""

from __future__ import annotations

import pytest

from trio_supervisor.application.immortality import (
    Interpreter,
    immortal_flag,
    immortality_problem,
    this_interpreter,
)
from trio_supervisor.errors import SpecError

KNOWN = Interpreter("cpython", (3, 13), True, False, False)


@pytest.mark.parametrize("version", [(3, 12), (3, 13)])
def test_known_interpreters_have_no_problem(version: tuple[int, int]) -> None:
    assert immortality_problem(KNOWN._replace(version=version)) == ""


@pytest.mark.parametrize(
    ("interpreter", "found"),
    [
        (KNOWN._replace(implementation="pypy"), "pypy"),
        (KNOWN._replace(version=(3, 11)), "Python 3.11"),
        (KNOWN._replace(version=(3, 14)), "Python 3.14"),
        (KNOWN._replace(is_free_threaded=True), "a free-threaded build"),
        (KNOWN._replace(is_debug=True), "a debug build"),
        (KNOWN._replace(is_64_bit=False), "a 32-bit build"),
    ],
)
def test_other_interpreters_are_refused(interpreter: Interpreter, found: str) -> None:
    with pytest.raises(SpecError) as caught:
        immortal_flag(True, "immortal_preload", lambda: interpreter)
    assert str(caught.value) == (
        f"immortal_preload: needs a 64-bit CPython 3.12 or 3.13, and this is {found}"
    )
    assert immortal_flag(False, "immortal_preload", lambda: interpreter) is False


def test_only_flags_are_accepted() -> None:
    with pytest.raises(SpecError, match="expected True or False, got 1"):
        immortal_flag(1, "immortal_preload")  # type: ignore[arg-type]


def test_this_interpreter_is_cpython() -> None:
    assert this_interpreter().implementation == "cpython"
