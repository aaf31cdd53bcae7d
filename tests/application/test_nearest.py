"""Test the suggestion of the nearest name."""

from __future__ import annotations

import pytest

from trio_supervisor.application.nearest import did_you_mean


@pytest.mark.parametrize(
    ("name", "words"),
    [("nofiles", " (did you mean 'nofile'?)"), ("zzz", ""), (7, "")],
)
def test_did_you_mean_names_the_nearest(name: object, words: str) -> None:
    assert did_you_mean(name, ["nofile", "core"]) == words
