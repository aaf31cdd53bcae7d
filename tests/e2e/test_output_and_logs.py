"""Output of workers: destinations, formats, and that it never blocks a worker."""

from __future__ import annotations

import json
import os
import pty
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    Serving,
    environment_of_children,
    open_serving,
    short_directory,
)

SERVICE = """
import os
import sys
import trio
from trio_supervisor import Application, Command, Service, SyncWorker, Worker

async def web(worker: Worker) -> None:
    print("hello from", worker.name, "generation", worker.generation, flush=True)
    print("caf\\u00e9", file=sys.stderr, flush=True)
    await worker.ready()
    await worker.stopping.wait()

def crashes(worker: SyncWorker) -> None:
    worker.ready()
    for i in range(200):
        print("line", i)
    sys.stdout.flush()
    os.write(2, b"the last word")  # without an end of line
    os.abort()

application = Application([
    Service("web", web, count=2),
    Service("crashes", crashes, backend="sync", restart="never"),
    Command("file", ["sh", "-c", "trap 'echo again' USR2; echo begun; echo bad >&2;"
                     "while :; do sleep 0.01; done"],
            log_file="tmp/file.log", forward_signals=["USR2"]),
    Command("chatty", ["sh", "-c", "while :; do echo tick; sleep 0.02; done"]),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, is_ready=False) as serving:
        serving.wait_event(event="supervisor_connected")
        for name in ("web.0", "web.1", "chatty.0", "file.0"):
            serving.wait_event(event="ready", name=name)
            serving.wait_worker(name, state="ready")
        yield serving


def test_json_log_lines_name_worker_pid_and_generation(serving: Serving) -> None:
    line = serving.printed("web.0", "café")

    assert line["pid"] == serving.pids()["web.0"]
    assert line["generation"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["time"])


def test_exited_event_has_last_lines_of_output(serving: Serving) -> None:
    exited = serving.wait_event(event="exited", name="crashes.0")

    assert exited["returncode"] == -signal.SIGABRT
    assert len(exited["last_lines"]) == 10
    assert "the last word" in exited["last_lines"]
    assert "line 199" in exited["last_lines"]


def test_logs_selects_workers_and_tail(serving: Serving) -> None:
    one = serving.cli("logs", "web.0")
    both = serving.cli("logs", "web", "--json")
    tail = serving.cli("logs", "crashes", "--tail", "3")
    none = serving.cli("logs", "crashes", "--tail", "0")
    ghost = serving.cli("logs", "ghost")

    # The two pipes are read in any order.
    assert {line.split(" | ")[1] for line in one.stdout.splitlines()} == {
        "hello from web.0 generation 1",
        "café",
    }
    entries = [json.loads(line) for line in both.stdout.splitlines()]
    assert {entry["name"] for entry in entries} == {"web.0", "web.1"}
    assert {entry["stream"] for entry in entries} == {"stdout", "stderr"}
    assert len(tail.stdout.splitlines()) == 3
    assert none.stdout == ""
    assert ghost.returncode == 1
    assert "ghost" in ghost.stderr


class Following:
    """A verb that runs with -f, and the lines that it prints."""

    def __init__(self, serving: Serving, *words: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *words, "-f"],
            cwd=serving.directory,
            env=environment_of_children(),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def line(self) -> str:
        """Wait for the next line."""
        return self._lines.get(timeout=PATIENCE)

    def entry(self) -> dict[str, Any]:
        """Wait for the next line, which is JSON."""
        found: dict[str, Any] = json.loads(self.line())
        return found

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


HELLO = {"hello from web.1 generation 1", "café"}


def test_logs_follow_continues_over_a_restart(serving: Serving) -> None:
    """Until it is interrupted."""
    with Following(serving, "logs", "web.1", "--tail", "1") as logs:
        assert logs.line().split(" | ")[1] in HELLO
        assert serving.cli("restart", "web.1").returncode == 0
        assert {logs.line().split(" | ")[1] for _ in range(2)} == HELLO
        assert logs.interrupt() == 130


def test_log_file_is_reopened_on_sigusr1(serving: Serving) -> None:
    log = serving.directory / "tmp" / "file.log"
    both = len("begun\nbad\n")
    serving.until(lambda: log.exists() and log.stat().st_size == both, "both lines")
    log.rename(log.with_suffix(".1"))

    serving.process.send_signal(signal.SIGUSR1)
    serving.until(log.exists, "the new file")
    serving.process.send_signal(signal.SIGUSR2)
    serving.until(lambda: log.read_text() == "again\n", "the line in the new file")

    # The two pipes are read in any order.
    assert set(log.with_suffix(".1").read_text().split()) == {"begun", "bad"}
    assert serving.worker("file.0")["restarts"] == 0


FLOOD = """
import sys
from trio_supervisor import Application, Service, SyncWorker

def flood(worker: SyncWorker) -> None:
    for _ in range(200):
        sys.stdout.write("x" * 99_999 + "\\n")
    sys.stdout.flush()
    worker.ready()
    worker.stopping.wait()

application = Application([Service("flood", flood, backend="sync", startup_timeout=50)])
"""


def test_worker_does_not_block_on_an_unread_pipe() -> None:
    """It prints 20 MB into a pipe that is never read; the excess is dropped."""
    reading, writing = os.pipe()
    try:
        with open_serving(FLOOD, stdout=writing) as serving:
            os.close(writing)
            serving.when_ready()
            assert serving.worker("flood.0")["restarts"] == 0
            assert serving.cli("status").returncode == 0
            assert serving.terminate() == 0
    finally:
        os.close(reading)


def test_terminal_output_has_coloured_names() -> None:
    ours, theirs = pty.openpty()
    source = SERVICE.split("application =")[0] + (
        'application = Application([Service("web", web, count=2)])\n'
    )
    with short_directory() as directory:
        (directory / "service.py").write_text(source)
        environment = {**environment_of_children(), "TERM": "xterm"}
        environment.pop("NO_COLOR", None)
        process = subprocess.Popen(
            [*COMMAND, "serve", "service.py"],
            cwd=directory,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        try:
            seen = b""
            while b"all 2 workers ready" not in seen or seen.count(b"hello from") < 2:
                seen += os.read(ours, 65536)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                while data := os.read(ours, 65536):
                    seen += data
            except OSError:  # a terminal without the other end
                pass
            assert process.wait(PATIENCE) == 0
            os.close(ours)
    text = seen.decode()
    prefixes = re.findall(r"(\x1b\[\d+m)web\.(\d) +\|\x1b\[0m hello from web\.\2", text)
    assert {number for _, number in prefixes} == {"0", "1"}
    assert "café" in text


def test_events_follow_begins_with_a_snapshot(serving: Serving) -> None:
    with Following(serving, "events", "--json") as events:
        snapshot = events.entry()
        assert snapshot["event"] == "snapshot"
        workers = {worker["name"]: worker for worker in snapshot["workers"]}
        assert {"web.0", "web.1", "crashes.0", "file.0", "chatty.0"} == workers.keys()
        assert workers["web.0"]["process_id"] == serving.pids()["web.0"]
        assert events.entry()["event"] == "serving"  # an event from before the call

        before = serving.kill("web.0")
        for kind in ("exited", "started", "ready"):
            event: dict[str, Any] = {}
            while (event.get("event"), event.get("name")) != (kind, "web.0") or (
                (event["process_id"] == before) != (kind == "exited")
            ):
                event = events.entry()
        assert events.interrupt() == 130
    lately = serving.cli("events")
    assert lately.returncode == 0
    assert "killed by SIGKILL" in lately.stdout
    assert "web.0 " in lately.stdout


STORM = """
from trio_supervisor import Application, Backoff, Command

application = Application([
    # Each event has the last lines: ten kilobytes. Each run counts as stable, for the
    # log reports only some exits of a crash loop.
    Command("storm", ["printf", "%01000d\\n", *"1234567890"], count=4,
            backoff=Backoff(stable_after=0)),
])
"""


def test_slow_reader_of_events_gets_the_number_missed() -> None:
    """The peer does not read; the queue of the controller is bounded."""
    with open_serving(STORM, is_ready=False) as serving:
        serving.wait_event(event="supervisor_connected")
        with serving.peer() as peer:
            peer.send('{"id":1,"do":"events","follow":true}')
            since = serving.mark()
            # More than all queues on the way can hold.
            missed = 0
            serving.wait_events(1000, since=since, event="exited")
            while not missed:
                missed = peer.receive().get("missed") or 0
            assert missed > 0
        assert serving.terminate() == 0
