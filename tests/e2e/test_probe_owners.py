"""Test that an answer from another process makes no worker ready."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = '''
import sys
from trio_supervisor import Application, Command, Probe

# Listens where nobody does; where somebody does, it goes on without.
ONE = [sys.executable, "-S", "-c", """
import os, socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    s.bind(("127.0.0.1", int(sys.argv[1])))
    s.listen()
except OSError:
    pass
time.sleep(1000)
"""]

def probe(**fields):
    return Probe.tcp("127.0.0.1:{own}", interval=0.05, **fields)

application = Application([
    Command("twins", [*ONE, "{own}"], count=2, readiness=probe()),
    Command("guest", ["sleep", "1000"],
            startup=Probe.tcp("127.0.0.1:{foreign}", interval=0.05, failures=10000)),
    Command("proxy", ["sleep", "1000"], readiness=probe(answered_by="anyone")),
])
'''


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        with socket.create_server(("127.0.0.1", 0)) as free:
            own = free.getsockname()[1]
        source = SERVICE.replace("{own}", str(own)).replace(
            "{foreign}", str(foreign.getsockname()[1])
        )
        with open_serving(source, is_ready=False) as found:
            found.wait_event(event="ready", name="proxy.0")
            yield found


def test_probe_answered_by_other_worker_does_not_count(serving: Serving) -> None:
    """The status and the log name the process that answers."""
    line = serving.wait_line("is answered by twins.")
    match = re.search(r"is answered by (twins\.[01]) \(pid ([0-9]+)\)", line)
    assert match is not None
    ready = serving.wait_worker(match[1], state="ready")
    assert ready["process_id"] == int(match[2])
    other = serving.worker({"twins.0": "twins.1", "twins.1": "twins.0"}[match[1]])
    assert other["state"] == "starting"
    assert other["status"].endswith(match[0])


def test_probe_answered_by_other_process_does_not_count(serving: Serving) -> None:
    serving.wait_line("guest.0: probe tcp://")
    guest = serving.worker("guest.0")
    assert guest["state"] == "starting"
    assert "is answered by " in guest["status"]


def test_probe_answered_by_anyone_counts(serving: Serving) -> None:
    assert serving.worker("proxy.0")["state"] == "ready"
