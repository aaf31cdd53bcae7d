"""Test whether a descriptor leads to journald."""

from __future__ import annotations

import os

import pytest

from tests.kits.output import open_pipe
from trio_supervisor.process.output.journal_stream import VARIABLE, is_journal


def test_is_journal_compares_device_and_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that was inherited by a process with another output means nothing."""
    with open_pipe() as (reading, writing), open_pipe() as (_, other):
        found = os.fstat(writing)
        monkeypatch.setenv(VARIABLE, f"{found.st_dev}:{found.st_ino}")
        assert is_journal(writing)
        assert not is_journal(other)
        os.close(reading)
        os.close(writing)
        assert not is_journal(writing)


@pytest.mark.parametrize("text", ["", "1", "a:b", "-1:2", ":", "1:2:3"])
def test_is_journal_ignores_malformed_variable(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert not is_journal(2)
