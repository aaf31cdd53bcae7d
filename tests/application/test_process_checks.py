"""Test the checks of process attributes; test_options has their table."""

from __future__ import annotations

import json

import pytest

from trio_supervisor.application.process_checks import Octal, hint


def test_octal_is_shown_in_octal_and_is_a_number() -> None:
    assert repr(Octal(0o7)) == "0o007"
    assert json.dumps(Octal(0o27)) == "23"


@pytest.mark.parametrize(
    ("name", "words"),
    [("nofiles", " (did you mean 'nofile'?)"), ("zzz", ""), (7, "")],
)
def test_hint_names_the_nearest(name: object, words: str) -> None:
    assert hint(name, ["nofile", "core"]) == words
