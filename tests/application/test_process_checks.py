"""Test the checks of process attributes; test_options has their table."""

from __future__ import annotations

import json

from trio_supervisor.application.process_checks import Octal


def test_octal_is_shown_in_octal_and_is_a_number() -> None:
    assert repr(Octal(0o7)) == "0o007"
    assert json.dumps(Octal(0o27)) == "23"
