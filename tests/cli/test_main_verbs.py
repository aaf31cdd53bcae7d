"""Every verb: its output as text and as JSON, and its exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    Serving,
    environment_of_children,
    open_serving,
    run_cli,
    short_directory,
)

SMALL = """
from trio_supervisor import Application, Command, Monitor, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.status(f"number {worker.index}")
    worker.ready()
    worker.stopping.wait()

class Weather(Monitor):
    def status(self):
        return {"sky": "blue"}

class Broken(Monitor):
    def status(self):
        raise LookupError("no sky at all")

application = Application(
    services=[
        Service("web", work, backend="sync", count=2),
        Command("nap", ["sleep", "1000"]),
    ],
    monitors=[Weather(), Broken()],
)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """An application with two workers, a command and two monitors."""
    with open_serving(SMALL) as serving:
        yield serving


def read_terminal(serving: Serving, *words: str, columns: int = 120) -> str:
    """Run a verb on a terminal, and return what it prints there."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=serving.directory,
        env={**environment_of_children(), **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO on Linux: the other end is closed
                break
            shown += data
    finally:
        os.close(ours)
        assert process.wait(PATIENCE) == 0
    return shown.decode()


def test_ping_prints_the_socket_that_responds(serving: Serving) -> None:
    finished = serving.cli("ping")
    assert finished.returncode == 0
    assert finished.stdout == f"the supervisor at {serving.socket} responds\n"

    finished = serving.cli("ping", "--json")
    assert json.loads(finished.stdout) == {
        "socket": str(serving.socket),
        "answered": True,
    }


def test_status_to_a_pipe_prints_plain_columns(serving: Serving) -> None:
    report = serving.call("workers")
    pids = {worker["name"]: worker["process_id"] for worker in report["workers"]}

    finished = serving.cli("status")

    assert (finished.returncode, finished.stderr) == (0, "")
    first, header, *rows, problem = finished.stdout.splitlines()
    supervisor = report["supervisor"]
    assert re.fullmatch(
        rf"supervisor pid {supervisor['process_id']}, "
        rf"incarnation {supervisor['incarnation']}, up \S.*; "
        rf"controller pid {serving.process.pid}",
        first,
    )
    names = ["NAME", "PID", "STATE", "CONNECTED", "UPTIME", "RESTARTS", "STATUS"]
    assert header.split() == names
    assert [row.split()[:2] for row in rows] == [
        [name, str(pid)] for name, pid in pids.items()
    ]
    web, nap = rows[1], rows[2]
    assert re.fullmatch(r"web\.1 +\d+ +ready +yes +\S+ +\d+ +number 1", web)
    assert re.fullmatch(r"nap\.0 +\d+ +ready +- +\S+ +\d+", nap)
    assert web.index("ready") == header.index("STATE")
    assert problem == "monitor broken: status(): LookupError: no sky at all"
    assert "\x1b" not in finished.stdout


@pytest.mark.parametrize("verb", ["status", "workers"])
def test_only_the_named_workers_are_shown(serving: Serving, verb: str) -> None:
    workers = serving.call("workers")["workers"]
    web = sorted(worker["name"] for worker in workers if worker["service"] == "web")

    def shown(*names: str) -> list[str]:
        report = json.loads(serving.cli(verb, *names, "--json").stdout)
        found = report["workers"] if verb == "status" else report
        return sorted(worker["name"] for worker in found)

    assert shown("web") == shown("we*.*") == shown("web.0", "web", "web.0") == web
    assert shown("web.0") == ["web.0"]
    unknown = serving.cli(verb, "wbe")
    assert unknown.returncode == 1
    assert unknown.stderr == (
        "trio-supervisor: no worker or service is named 'wbe' (did you mean 'web'?)\n"
    )


def test_status_json_has_documented_fields(serving: Serving) -> None:
    """And the status of monitors."""
    finished = serving.cli("status", "--json")

    status = json.loads(finished.stdout)
    assert finished.returncode == 0
    assert {"process_id", "incarnation"} <= set(status["supervisor"])
    assert status["controller"]["process_id"] == serving.process.pid
    promised = {
        *("name", "service", "process_id", "state", "connected", "connection_id"),
        *("incarnation", "restarts", "uptime"),
    }
    for worker in status["workers"]:
        assert promised <= set(worker)
    assert [w["service"] for w in status["workers"]] == ["web", "web", "nap"]
    assert status["monitors"]["weather"] == {"sky": "blue"}
    assert status["monitors"]["broken"] == {
        "problem": "status(): LookupError: no sky at all"
    }


def test_workers_lists_names_as_table_and_json(serving: Serving) -> None:
    table = serving.cli("workers").stdout.splitlines()
    listed = json.loads(serving.cli("workers", "--json").stdout)

    assert [row.split()[0] for row in table] == ["NAME", "web.0", "web.1", "nap.0"]
    assert [worker["name"] for worker in listed] == ["web.0", "web.1", "nap.0"]


def test_restart_takes_workers_services_or_all(serving: Serving) -> None:
    def restarts() -> list[int]:
        return [w["restarts"] for w in serving.when_ready()["workers"]]

    before = restarts()
    assert serving.cli("restart", "web.1").stdout == "web.1 restarted\n"
    assert restarts() == [before[0], before[1] + 1, before[2]]
    finished = serving.cli("restart", "web", "nap.0", "--json")
    assert json.loads(finished.stdout) == {"done": "restart", "names": ["web", "nap.0"]}
    assert restarts() == [before[0] + 1, before[1] + 2, before[2] + 1]
    assert serving.cli("restart", "--all").stdout == "everything restarted\n"
    assert restarts() == [before[0] + 2, before[1] + 3, before[2] + 2]
    assert serving.cli("restart", "all").stdout == "everything restarted\n"
    assert restarts() == [before[0] + 3, before[1] + 4, before[2] + 3]


def test_everything_is_stopped_and_started(serving: Serving) -> None:
    assert serving.cli("stop", "--all").stdout == "everything stopped\n"
    workers = json.loads(serving.cli("workers", "--json").stdout)
    assert {w["state"] for w in workers} == {"stopped"}
    assert serving.cli("start", "all").stdout == "everything started\n"
    serving.when_ready()


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_verb_without_a_name_asks_for_all(serving: Serving, verb: str) -> None:
    for words, problem in (
        ([], "name workers or services, or give --all"),
        (["web", "--all"], "--all cannot be combined with names"),
    ):
        finished = serving.cli(verb, *words)
        assert finished.returncode == 2
        assert finished.stderr == f"trio-supervisor: {problem}\n"


def test_stop_and_start_change_the_state(serving: Serving) -> None:
    assert serving.cli("stop", "web", "nap").stdout == "web, nap stopped\n"
    workers = json.loads(serving.cli("workers", "--json").stdout)
    assert {(w["state"], w["process_id"]) for w in workers} == {("stopped", None)}
    rows = serving.cli("workers").stdout.splitlines()[1:]
    assert re.fullmatch(r"web\.0 +- +stopped +no +- +\d+ +\(exit code 0\)", rows[0])

    assert serving.cli("start", "web.1").stdout == "web.1 started\n"
    states = [w["state"] for w in json.loads(serving.cli("workers", "--json").stdout)]
    assert states == ["stopped", "ready", "stopped"]
    finished = serving.cli("start", "web", "nap", "--json")
    assert json.loads(finished.stdout) == {"done": "start", "names": ["web", "nap"]}
    states = [w["state"] for w in json.loads(serving.cli("workers", "--json").stdout)]
    assert states == ["ready", "ready", "ready"]


def test_thread_dump_shows_stacks_of_each_worker(serving: Serving) -> None:
    serving.when_ready()
    text = serving.cli("thread-dump", "web.0").stdout
    assert text.startswith("Thread MainThread (ident ")
    assert f"{serving.directory}/service.py:7 in work" in text
    assert "worker.stopping.wait()" in text

    both = serving.cli("thread-dump", "web").stdout
    assert [line for line in both.splitlines() if line.startswith("===")] == [
        "=== web.0",
        "=== web.1",
    ]
    one = json.loads(serving.cli("thread-dump", "web.1", "--json").stdout)
    assert one["threads"][0]["name"] == "MainThread"
    two = json.loads(serving.cli("thread-dump", "web", "--json").stdout)
    assert set(two) == {"web.0", "web.1"}


def test_call_prints_the_answer_as_json(serving: Serving) -> None:
    serving.when_ready()
    finished = serving.cli("call", "web.0", "ping")
    assert (finished.returncode, json.loads(finished.stdout)) == (0, {})
    finished = serving.cli("call", "web", "thread-dump", "--json")
    assert set(json.loads(finished.stdout)) == {"web.0", "web.1"}


def test_thread_dump_of_a_command_shows_kernel_state(
    serving: Serving,
) -> None:
    finished = serving.cli("thread-dump", "nap")

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(
        "(no answer from the worker; reported by the kern"
    )
    assert "Main thread " in finished.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["restart", "nope"], "NoSuchWorker: no worker or service has the name 'nope'"),
        (["stop", "web.7"], "NoSuchWorker: no worker or service has the name 'web.7'"),
        (
            ["start", "web.0", "x"],
            "NoSuchWorker: no worker or service has the name 'x'",
        ),
        (["thread-dump", "nope"], "no worker or service has the name 'nope'; workers:"),
        (["call", "web.0", "dance"], "UnknownOperation: "),
        (["slow-tasks", "nap"], "NotConnected: nap.0 is not connected"),
    ],
)
def test_failed_call_exits_with_1(
    serving: Serving, words: list[str], message: str
) -> None:
    finished = serving.cli(*words)

    assert finished.returncode == 1
    assert finished.stderr.startswith(f"trio-supervisor: {message}")
    assert (finished.stdout, finished.stderr.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dance"],
        ["stop"],
        ["start"],
        ["serve", "a.py", "b.py"],
        ["ping", "web"],
        ["status", "--timeout", "0"],
        ["status", "--timeout", "soon"],
        ["ping", "--timeout", "inf"],
        ["call", "web.0"],
        ["call", "web.0", "ping", "loud"],
        ["call", "web.0", "ping", "a=1", "a=2"],
        ["call", "web.0", "ping", "=1"],
    ],
    ids=" ".join,
)
def test_invalid_usage_exits_with_2(serving: Serving, words: list[str]) -> None:
    finished = serving.cli(*words)

    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr


VERBS = (
    ["ping"],
    ["status"],
    ["workers"],
    ["restart", "--all"],
    ["stop", "web"],
    ["start", "web"],
    ["shutdown"],
    ["thread-dump", "web"],
    ["call", "web", "ping"],
)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_verb_without_supervisor_exits_with_3(words: list[str]) -> None:
    """The message names the socket, and what to do."""
    with short_directory() as directory:
        finished = run_cli(*words, directory=directory)

        assert finished.returncode == 3
        assert finished.stderr == (
            f"trio-supervisor: no supervisor answers at {directory}/supervisor.ipc (no "
            f"such file)\nStart one with `trio-supervisor serve service.py`, or set "
            f"its socket with --socket PATH or TRIO_SUPERVISOR_SOCKET.\n"
        )


def test_stale_socket_is_named_in_the_error() -> None:
    with short_directory() as directory:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(directory / "supervisor.ipc"))

        finished = run_cli("ping", directory=directory)

        assert finished.returncode == 3
        assert (
            "(the socket file exists, but no process listens there)" in finished.stderr
        )


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_silent_server_exits_with_4_after_the_timeout(words: list[str]) -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(directory / "s.ipc"))
        silent.listen()

        finished = run_cli(
            *words, "--socket", "s.ipc", "--timeout", "0.1", directory=directory
        )

    assert finished.returncode == 4
    assert finished.stderr == "trio-supervisor: no answer within 0.1 s\n"


def test_closed_connection_exits_with_1() -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(directory / "supervisor.ipc"))
        rude.listen()

        def hang_up() -> None:
            connection, _ = rude.accept()
            with connection:
                connection.recv(4096)

        thread = threading.Thread(target=hang_up)
        thread.start()
        finished = run_cli("status", directory=directory)
        thread.join()

    assert finished.returncode == 1
    assert finished.stderr == (
        "trio-supervisor: the supervisor closed the connection; try again\n"
    )


def test_socket_option_overrides_the_variable(serving: Serving) -> None:
    path, nowhere = str(serving.socket), "/tmp/nowhere.ipc"
    root = Path("/")

    assert run_cli("ping", "--socket", path, directory=root).returncode == 0
    by_variable = run_cli("ping", directory=root, TRIO_SUPERVISOR_SOCKET=path)
    assert by_variable.returncode == 0
    both = run_cli(
        *("ping", "--socket", nowhere), directory=root, TRIO_SUPERVISOR_SOCKET=path
    )
    assert both.returncode == 3
    assert nowhere in both.stderr


def test_status_on_a_terminal_is_coloured(serving: Serving) -> None:
    serving.when_ready()
    shown = read_terminal(serving, "status")

    assert "\x1b[32mready" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"web\.0 +\d+ +ready +yes", plain)
    assert "─" in plain


def test_json_on_a_terminal_is_not_coloured(serving: Serving) -> None:
    shown = read_terminal(serving, "workers", "--json")

    assert "\x1b" not in shown
    assert [worker["name"] for worker in json.loads(shown)][:1] == ["web.0"]


def test_closed_pipe_exits_with_0(serving: Serving) -> None:
    """For instance a pipe to `head`."""
    serving.when_ready()
    for words in (["status"], ["thread-dump", "web"], ["status", "--json"]):
        with subprocess.Popen(
            [*COMMAND, *words],
            cwd=serving.directory,
            env=environment_of_children(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert process.returncode == 0


def test_ctrl_c_exits_with_130_silently() -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(directory / "supervisor.ipc"))
        silent.listen()
        silent.settimeout(PATIENCE)
        with subprocess.Popen(
            [*COMMAND, "status"],
            cwd=directory,
            env=environment_of_children(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(PATIENCE)
                connection.recv(4096)
                process.send_signal(signal.SIGINT)
                _, error = process.communicate(timeout=PATIENCE)

    assert (process.returncode, error) == (130, "")


def test_help_names_verbs_and_exit_codes(serving: Serving) -> None:
    text = serving.cli("--help").stdout

    for verb in (words[0] for words in VERBS):
        assert verb in text
    for code in (0, 1, 2, 3, 4, 10, 11, 12, 13):
        assert re.search(rf"\b{code} ", text)


@contextmanager
def open_gate(serving: Serving) -> Iterator[int]:
    """Open the fifo that the worker reads to its end before it is ready."""
    yield os.open(serving.directory / "gate", os.O_WRONLY)


class TestWaitReady:
    """``status --wait-ready``."""

    def test_waits_for_a_supervisor_to_start(self) -> None:
        with short_directory() as directory:
            (directory / "service.py").write_text(SMALL)
            waiting = subprocess.Popen(
                [*COMMAND, "status", "--wait-ready", "--timeout", "60"],
                cwd=directory,
                env=environment_of_children(),
                stdout=subprocess.PIPE,
                text=True,
            )
            with (
                waiting,
                subprocess.Popen(
                    [*COMMAND, "serve", "service.py"],
                    cwd=directory,
                    env=environment_of_children(),
                    stderr=subprocess.DEVNULL,
                ) as serving,
            ):
                try:
                    shown, _ = waiting.communicate(timeout=PATIENCE)
                finally:
                    serving.send_signal(signal.SIGTERM)

            assert waiting.returncode == 0
            assert shown.count(" ready ") == 3
            assert serving.returncode == 0

    def test_continues_after_a_supervisor_restart(self) -> None:
        """The worker becomes ready only after the supervisor was killed."""
        source = """
import os
from trio_supervisor import Application, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    with open("gate") as gate:
        gate.read()
    worker.ready()
    worker.stopping.wait()

application = Application(services=[Service("web", work, backend="sync")])
os.path.exists("gate") or os.mkfifo("gate")
"""
        with open_serving(source, is_ready=False) as serving:
            serving.wait_event(event="supervisor_connected")
            with (
                open_gate(serving) as gate,
                subprocess.Popen(
                    [*COMMAND, "status", "--wait-ready", "--timeout", "60"],
                    cwd=serving.directory,
                    env=environment_of_children(),
                    stdout=subprocess.PIPE,
                    text=True,
                ) as waiting,
            ):
                serving.kill("supervisor")
                serving.wait_event(event="supervisor_connected", is_back=True)
                assert waiting.poll() is None
                os.close(gate)
                shown, _ = waiting.communicate(timeout=PATIENCE)

            assert waiting.returncode == 0
            assert "incarnation 2" in shown
            assert re.search(r"web\.0 +\d+ +ready +yes", shown)

    def test_without_supervisor_exits_with_4(self) -> None:
        with short_directory() as directory:
            finished = run_cli(
                *("status", "--wait-ready", "--timeout", "0.2"), directory=directory
            )

            assert finished.returncode == 4
            assert finished.stderr == (
                f"trio-supervisor: no supervisor answered at "
                f"{directory}/supervisor.ipc within 0.2 s\n"
            )

    def test_unready_worker_is_named_at_the_timeout(self) -> None:
        source = """
from trio_supervisor import Application, Command
application = Application([Command("nap", ["sleep", "1000"], notify=True)])
"""
        with open_serving(source, is_ready=False) as serving:
            serving.wait_event(event="supervisor_connected")

            finished = serving.cli("status", "--wait-ready", "--timeout", "0.3")

            assert finished.returncode == 4
            assert finished.stderr == (
                "trio-supervisor: not all workers were ready within 0.3 s (--timeout): "
                "nap.0 is starting\n"
            )

    def test_failed_worker_exits_with_1_immediately(self) -> None:
        source = """
from trio_supervisor import Application, Command
application = Application([Command("bad", ["false"], notify=True, restart="never")])
"""
        with open_serving(source, is_ready=False) as serving:
            serving.wait_event(event="supervisor_connected")

            finished = serving.cli("status", "--wait-ready", "--timeout", "60")

            assert finished.returncode == 1
            assert finished.stderr == (
                "trio-supervisor: Unavailable: bad.0 failed: exit code 1\n"
            )


def test_status_is_watched_while_the_supervisor_is_replaced(serving: Serving) -> None:
    words = ["status", "--watch", "--interval", "0.05", "web.0"]
    with subprocess.Popen(
        [*COMMAND, *words],
        cwd=serving.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        lines = iter(watching.stdout)
        next(line for line in lines if line.startswith("web.0 "))
        serving.kill("supervisor")
        next(line for line in lines if ", incarnation 2," in line)
        next(line for line in lines if line.startswith("web.0 "))
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=60)
    assert (watching.returncode, errors) == (130, "")
