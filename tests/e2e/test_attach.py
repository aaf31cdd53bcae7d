"""Test that a terminal is attached to that of a worker: both are real terminals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.kits.serving import PATIENCE, Serving, is_alive, open_serving
from tests.kits.terminal_user import open_terminal_user

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

SERVICE = """
from trio_supervisor import Application, Command

FLOOD = "cat; head -c 5000000 /dev/zero | tr '\\\\0' x; echo done > flooded; sleep 1000"
PLAIN = "while :; do printf 'a\\\\033[7m\\\\n'; sleep 0.1; done"
application = Application([
    Command(
        "console", ["sh", "-i"], tty=True, stop_signal="HUP",
        environment={"PS1": "ready> "},
    ),
    Command("flood", ["sh", "-c", FLOOD], tty=True),
    Command("plain", ["sh", "-c", PLAIN]),
    Command("two", ["sleep", "1000"], count=2, tty=True),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE) as found:
        yield found


def test_keys_size_and_interrupt_reach_the_program(serving: Serving) -> None:
    with open_terminal_user("attach", "console", directory=serving.directory) as user:
        modes = user.modes()
        user.wait("[attached to console; Ctrl-], or Ctrl-P Ctrl-Q, detaches]")
        user.wait("ready> ")
        assert user.modes() != modes
        user.type("echo $((40 + 2)); stty size\r")
        user.wait("\r\n42\r\n30 100\r\n")
        user.resize(40, 120)
        user.type("while test \"$(stty size)\" != '40 120'; do sleep 0.01; done\r")
        user.type("echo re''sized\r")
        user.wait("resized\r\n")
        # The shell makes it the foreground job before it prints.
        user.type("sh -c 'echo be\"\"fore; exec sleep 1000'; echo not''reached\r")
        user.wait("before\r\n")
        user.type("\x03")
        assert "notreached" not in user.wait("ready> ")
        user.type("\x10\x11")
        user.wait("[detached from console, which keeps running]")
        assert user.wait_exit() == 0
        assert user.modes() == modes
    assert "42" in serving.cli("logs", "console").stdout


def test_restarts_of_worker_and_supervisor_are_survived(serving: Serving) -> None:
    with open_terminal_user("attach", "console.0", directory=serving.directory) as user:
        user.wait("ready> ")
        before = serving.pids("console")["console.0"]
        user.type("exit 3\r")
        user.wait("[console.0 has exited; waiting for its next process]")
        user.wait("[console.0 has started (pid ")
        user.wait("ready> ")
        user.type("stty size\r")
        user.wait("30 100")
        serving.kill("supervisor")
        user.wait("[connection to the supervisor lost; reconnecting]")
        user.wait("[connected again]")
        user.wait("ready> ")
        user.type("echo st''ill\r")
        user.wait("still")
        user.type("\x1d")
        assert user.wait_exit() == 0
    assert serving.pids("console")["console.0"] != before


def test_slow_terminal_does_not_block_the_program(serving: Serving) -> None:
    """It reads nothing while the program writes more than all buffers hold."""
    with open_terminal_user("attach", "flood", directory=serving.directory) as user:
        user.wait("detaches]")
        user.type("go\r\x04")
        serving.until((serving.directory / "flooded").exists, "all is written")
        user.wait("output was dropped: this terminal is too slow")
        user.type("\x1d")
        assert user.wait_exit() == 0


def test_worker_without_a_terminal_is_shown_only(serving: Serving) -> None:
    """Its control characters do not reach the terminal; Ctrl-C ends the verb."""
    with open_terminal_user("attach", "plain", directory=serving.directory) as user:
        modes = user.modes()
        user.wait("[plain has no terminal: output only; input needs tty=True]")
        user.wait("a\\x1b[7m\r\n")
        user.type("\x03")
        assert user.wait_exit() == 130
        assert user.modes() == modes
    assert is_alive(serving.pids("plain")["plain.0"])


def test_signal_ends_the_verb_and_restores_the_terminal(serving: Serving) -> None:
    with open_terminal_user("attach", "two.1", directory=serving.directory) as user:
        modes = user.modes()
        user.wait("detaches]")
        os.kill(user.process.pid, signal.SIGTERM)
        assert user.wait_exit() == -signal.SIGTERM
        assert user.modes() == modes


def test_closed_terminal_ends_the_verb_and_not_the_worker(serving: Serving) -> None:
    before = serving.pids("two")
    with open_terminal_user("attach", "two.1", directory=serving.directory) as user:
        user.wait("detaches]")
        user.close()
        assert user.process.wait(PATIENCE) in (0, -signal.SIGHUP)
    assert serving.pids("two") == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("two", "two has several workers; name one of them: two.0, two.1"),
        ("no", "no worker or service has the name 'no'"),
    ],
)
def test_one_worker_has_to_be_named(serving: Serving, name: str, problem: str) -> None:
    refused = serving.cli("attach", name)
    assert refused.returncode == 1
    assert problem in refused.stderr


def test_end_of_the_application_ends_the_verb(serving: Serving) -> None:
    with open_terminal_user("attach", "two.0", directory=serving.directory) as user:
        user.wait("detaches]")
        assert serving.terminate() == 0
        user.wait("[the application has stopped]")
        assert user.wait_exit() == 0
