"""Test what destinations do with files."""

from __future__ import annotations

import os

import pytest

from tests.kits.output import open_pipe
from trio_supervisor.process.output.device import FILE


def test_file_device_writes_counts_and_closes() -> None:
    with open_pipe() as (reading, writing):
        assert FILE.write(writing, [b"one\n", memoryview(b"two")]) == 7
        assert os.read(reading, 100) == b"one\ntwo"
        assert FILE.count(b"one\ntwo") == 2
        FILE.close(writing)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(writing)
