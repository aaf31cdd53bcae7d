"""Numbers of a process that the controller reads."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from trio_supervisor.process.shared_numbers import open_numbers, use_numbers


def test_numbers_of_a_killed_process_remain() -> None:
    with open_numbers(3) as shared:
        pid = os.fork()
        if pid == 0:
            numbers = use_numbers(shared.descriptor, 3)
            numbers[1] = 42.5
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert list(shared.read()) == [0, 42.5, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="sealing needs Linux")
def test_a_process_cannot_truncate_them() -> None:
    """A mapping of a truncated file kills the process that reads it, by SIGBUS."""
    with open_numbers(3) as shared, pytest.raises(PermissionError):
        os.ftruncate(shared.descriptor, 0)


def test_closing_twice_does_not_close_another_descriptor() -> None:
    shared = open_numbers(1)
    shared.close()
    other = os.open(os.devnull, os.O_RDONLY)
    shared.close()
    os.fstat(other)
    os.close(other)
