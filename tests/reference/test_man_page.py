"""Test the manual page."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from trio_supervisor.cli.verbs import VERBS
from trio_supervisor.reference.man_page import page


def test_every_verb_option_and_example_is_there() -> None:
    text = page().replace("\\-", "-")
    for verb in VERBS.values():
        assert f'.SS "{verb.name}"' in text
        for one in verb.arguments:
            assert not (one.is_option and one.help) or one.names[-1] in text
        for example in verb.examples:
            assert example.command.replace("'", "\\(aq") in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_groff_has_no_complaint() -> None:
    finished = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"],
        input=page().encode(),
        capture_output=True,
        check=True,
    )
    assert finished.stderr == b""
    assert b"--since" in finished.stdout
