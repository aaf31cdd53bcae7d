"""Test what the guardian makes of output whose controller was killed."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
import termios
import time
from pathlib import Path
from typing import Any, Final

import pytest

from trio_supervisor.process.cleanup.output_relay import OutputRelay

_HIGH: Final = 1100


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_lines_of_a_terminal_end_as_in_the_controller(tmp_path: Path) -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    path = tmp_path / "log"
    fields = {"name": "a.0", "stream": "stdout", "path": str(path), "form": "raw"}
    relay = OutputRelay()
    relay.receive(f"7\n{json.dumps([fields])}".encode(), [master])
    thread = relay.start()
    end = time.monotonic() + 10
    while termios.tcgetattr(slave)[1] & termios.OPOST:
        assert time.monotonic() < end
        time.sleep(0.001)
    os.write(slave, b"one\ntwo\n")
    os.close(slave)  # the kernel may pass on the lines a moment later, but before this
    relay.finish(thread, 30)
    assert not thread.is_alive()
    assert path.read_bytes() == b"one\ntwo\n"
    os.close(master)


def test_any_number_of_descriptors_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guardian has two for each worker: a thousand are too many for select(2)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[0] != resource.RLIM_INFINITY and limit[0] <= _HIGH:
        pytest.skip("not allowed here")
    plain_open = os.open

    def open_high(*arguments: Any) -> int:
        descriptor = plain_open(*arguments)
        try:
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH)
        finally:
            os.close(descriptor)

    monkeypatch.setattr(os, "open", open_high)
    reading, writing = os.pipe()
    path = tmp_path / "log"
    fields = {"name": "a.0", "stream": "stdout", "path": str(path), "form": "raw"}
    relay = OutputRelay()
    relay.receive(f"7\n{json.dumps([fields])}".encode(), [reading])
    os.write(writing, b"one\n")
    os.close(writing)
    relay.finish(relay.start(), 30)
    monkeypatch.undo()
    assert path.read_bytes() == b"one\n"
    os.close(reading)
