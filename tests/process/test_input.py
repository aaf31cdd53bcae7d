"""Test that standard input is opened without blocking this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_supervisor.process.input import open_input


def test_input_is_a_blocking_descriptor_that_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("line")
    descriptor = open_input(str(path))
    assert os.read(descriptor, 9) == b"line"
    assert os.get_blocking(descriptor)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_fifo_without_writer_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.close(open_input(str(tmp_path / "fifo")))


def test_directory_and_missing_file_are_refused(tmp_path: Path) -> None:
    before = os.listdir("/dev/fd")
    with pytest.raises(IsADirectoryError):
        open_input(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        open_input(str(tmp_path / "missing"))
    assert os.listdir("/dev/fd") == before
