"""Test that processes read their standard input, and have a terminal if asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
SERVICE = """
import os
import sys
import trio
from trio_supervisor import Application, Command, Service

async def work(worker):
    print("read", sys.stdin.readline().strip(), flush=True)
    await worker.ready()
    await trio.sleep_forever()

PROGRAM = "tty; stty size; echo $TERM; exec 3</dev/tty && echo controlling; sleep 1000"
application = Application([
    Service("forked", work, stdin="in.txt"),
    Service("executed", work, start_method="exec", stdin="in.txt"),
    Command("command", ["sh", "-c", "cat; sleep 1000"], stdin="in.txt"),
    Command("terminal", ["sh", "-c", PROGRAM], tty=True, environment={"TERM": "vt9"}),
    Command(
        "both",
        ["sh", "-c", "cat; test -t 2 && echo terminal >&2; exec sleep 1000"],
        tty=True, stdin="in.txt", log_file="both.log",
    ),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, files={"in.txt": "text\n"}) as found:
        yield found


def logs(serving: Serving, name: str) -> str:
    return serving.cli("logs", name).stdout


@pytest.mark.parametrize("name", ["forked", "executed", "command"])
def test_standard_input_is_the_file(serving: Serving, name: str) -> None:
    words = "text" if name == "command" else "read text"
    assert words in logs(serving, name)


def test_replacement_reads_the_file_from_its_beginning(serving: Serving) -> None:
    assert serving.cli("restart", "forked").returncode == 0
    serving.until(lambda: logs(serving, "forked").count("read text") == 2, "a line")


def test_terminal_is_the_controlling_one_and_of_usual_size(serving: Serving) -> None:
    serving.until(lambda: "controlling" in logs(serving, "terminal"), "the last line")
    for line in ("24 80", "vt9", "/dev/pts/"):
        assert line in logs(serving, "terminal")


def test_terminal_with_input_and_log_file(serving: Serving) -> None:
    path = serving.directory / "both.log"
    serving.until(lambda: path.read_text() == "text\nterminal\n", "the log file")
