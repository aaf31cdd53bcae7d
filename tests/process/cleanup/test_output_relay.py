"""Test what the guardian makes of a terminal whose controller was killed."""

from __future__ import annotations

import json
import os
import sys
import termios
import time
from pathlib import Path

import pytest

from trio_supervisor.process.cleanup.output_relay import OutputRelay


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
