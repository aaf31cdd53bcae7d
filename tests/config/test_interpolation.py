"""Test the replacement of references to variables."""

from __future__ import annotations

import pytest

from trio_supervisor.config.interpolation import (
    InterpolationError,
    Text,
    Variable,
    Variables,
)

VARIABLES = Variables(
    (
        {"HOME": Variable("/root"), "PATH": Variable("/bin"), "EMPTY": Variable("")},
        {"BRACES": Variable("{index}${HOME}"), "KEY": Variable("k", is_secret=True)},
        {
            "PATH": Variable("${HOME}/bin:${PATH}", is_literal=False),
            "URL": Variable("db://app:${KEY}@db", is_literal=False),
            "ONE": Variable("${TWO}", is_literal=False),
            "TWO": Variable("${ONE}", is_literal=False),
            "PORT": Variable("{8000+index}", is_literal=False),
        },
    )
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${HOME}/x", "/root/x"),
        ("$HOME $$ $1", "$HOME $$ $1"),
        ("$${HOME}", "${HOME}"),
        ("${GONE:-a b}", "a b"),
        ("${GONE:-${HOME}}", "/root"),
        ("${EMPTY:-a}${EMPTY-a}", "a"),
        ("${GONE:-}", ""),
        ("${GONE:-{index}}", "{index}"),
        ("${PATH}", "/root/bin:/bin"),
        ("--port=${PORT}", "--port={8000+index}"),
        ("${BRACES}", "{{index}}${HOME}"),
    ],
)
def test_replace_gives_text(text: str, expected: str) -> None:
    assert VARIABLES.replace(text) == Text(expected)


def test_replace_of_secret_is_a_secret() -> None:
    assert VARIABLES.replace("${URL}") == Text("db://app:k@db", is_secret=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${HOEM}", r"^the variable HOEM is not set \(did you mean 'HOME'\?\); give"),
        ("${x#*/}", r"^expected \$\{NAME\} or .*, got '\$\{x#\*/\}'; for a literal"),
        ("${1}", r"^expected \$\{NAME\}"),
        ("${", r"^expected \$\{NAME\}"),
        ("${ONE}", r"^refers to itself: ONE -> TWO -> ONE$"),
    ],
)
def test_replace_of_bad_reference_raises(text: str, problem: str) -> None:
    with pytest.raises(InterpolationError, match=problem):
        VARIABLES.replace(text)
    assert VARIABLES.replace("${HOME}") == Text("/root")


def test_environment_has_all_layers_but_that_of_the_process() -> None:
    found = VARIABLES.environment()
    assert sorted(found) == ["BRACES", "KEY", "ONE", "PATH", "PORT", "TWO", "URL"]
    assert found["KEY"] == Text("k", is_secret=True)
    assert isinstance(found["ONE"], InterpolationError)
