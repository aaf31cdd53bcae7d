"""``run`` and ``exec``: processes of a service with the terminal of the user."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import environment_of_children, short_directory
from tests.kits.sockets import unused_port

PATIENCE = 60

SERVICE = """
import os
import trio
from trio_supervisor import Application, Command, Counter, Listen, Metrics, Service

async def web(worker):
    worker.metrics.starts_total.inc()
    address = worker.sockets["http"].getsockname()
    await worker.status(f"serving at {address[1]}, A={os.environ['A']}, {os.getcwd()}")
    await worker.ready()
    await worker.stopping.wait()
    print("stopped gracefully", flush=True)

def debugged(worker):
    worker.ready()
    answer = 41
    breakpoint()
    print("the answer is", answer, flush=True)

def failing(worker):
    raise ValueError("a mistake of the application")

def coded(worker):
    raise SystemExit(7)

def stubborn(worker):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.ready()
    while True:
        signal.pause()

application = Application([
    Service("web", web, environment={"A": "1"}, directory="/",
            metrics=Metrics(starts_total=Counter()),
            sockets={"http": Listen(f"tcp://127.0.0.1:{os.environ.get('PORT', 8)}")}),
    Service("debugged", debugged, backend="sync"),
    Service("failing", failing, backend="sync"),
    Service("coded", coded, backend="sync"),
    Service("stubborn", stubborn, backend="sync", stop_timeout=0.2),
    Command("own", ["sh", "-c", "trap 'exit 5' INT; echo go; sleep 100 & wait"],
            stop_signal="INT"),
    Command("cmd", ["sh", "-c", "echo $A $(ulimit -n) $(pwd); exit 3"],
            environment={"A": "in {name}"}, expand=True, limits={"nofile": 444},
            directory="/"),
])
"""


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        (directory / "service.py").write_text(SERVICE)
        yield directory


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "trio_supervisor", *words]


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=directory,
        env=environment_of_children(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_command_has_its_surroundings(directory: Path) -> None:
    done = run(directory, "run", "cmd")
    assert (done.returncode, done.stdout, done.stderr) == (3, "in cmd.0 444 /\n", "")


def test_exec_runs_any_command_in_them(directory: Path) -> None:
    words = ["sh", "-c", "echo $A $(ulimit -n) $(pwd) $TRIO_SUPERVISOR_NAME"]
    done = run(directory, "exec", "cmd", "--", *words)
    assert (done.returncode, done.stdout) == (0, "in cmd.0 444 /\n")
    assert run(directory, "exec", "cmd.0", "--", "false").returncode == 1
    killed = run(directory, "exec", "cmd", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 137
    absent = run(directory, "exec", "cmd", "--", "no-such-program")
    assert (absent.returncode, absent.stderr) == (
        127,
        "no-such-program: command not found\n",
    )


def test_unknown_service_is_named(directory: Path) -> None:
    done = run(directory, "run", "wbe")
    assert done.returncode == 10
    assert "no service has the name 'wbe' (did you mean 'web'?)" in done.stderr


def test_what_a_target_raises_is_shown_without_our_frames(directory: Path) -> None:
    done = run(directory, "run", "failing")
    assert done.returncode == 1
    assert "ValueError: a mistake of the application" in done.stderr
    assert "trio_supervisor/" not in done.stderr
    assert run(directory, "run", "coded").returncode == 7


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_worker_has_its_sockets_and_stops_gracefully(
    directory: Path, sig: signal.Signals
) -> None:
    port = unused_port()
    with subprocess.Popen(
        command("run", "web"),
        cwd=directory,
        env={**environment_of_children(), "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"web.0: serving at {port}, A=1, /\n"
        assert process.stderr.readline() == "web.0: ready\n"
        process.send_signal(sig)
        output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, "stopped gracefully\n")


def test_worker_that_ignores_the_stop_is_killed(directory: Path) -> None:
    with subprocess.Popen(
        command("run", "stubborn"),
        cwd=directory,
        env=environment_of_children(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "stubborn.0: ready\n"
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 137


def test_process_is_stopped_by_the_signal_of_its_service(directory: Path) -> None:
    with subprocess.Popen(
        command("run", "own"),
        cwd=directory,
        env=environment_of_children(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 5


def in_terminal(directory: Path, *words: str) -> tuple[int, int]:
    """Run a verb in a terminal of its own; return its pid and our end."""
    process_id, terminal = pty.fork()
    if process_id == 0:  # pragma: no cover
        os.chdir(directory)
        os.execve(sys.executable, command(*words), environment_of_children())
    return process_id, terminal


def read_until(terminal: int, part: bytes) -> bytes:
    found = b""
    while part not in found:
        found += os.read(terminal, 1000)
    return found


def test_debugger_has_the_terminal(directory: Path) -> None:
    process_id, terminal = in_terminal(directory, "run", "debugged")
    read_until(terminal, b"(Pdb)")
    os.write(terminal, b"answer += 1\n")
    read_until(terminal, b"(Pdb)")
    os.write(terminal, b"continue\n")
    read_until(terminal, b"the answer is 42")
    _, status = os.waitpid(process_id, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


def test_ctrl_c_reaches_the_process(directory: Path) -> None:
    # A single long sleep could begin after the signal, and would not be interrupted.
    waiting = "while :; do sleep 0.05; done"
    program = f"trap 'echo interrupted; exit 5' INT; echo go; {waiting}"
    words = ["sh", "-c", program]
    process_id, terminal = in_terminal(directory, "exec", "cmd", "--", *words)
    read_until(terminal, b"go")
    os.write(terminal, b"\x03")
    read_until(terminal, b"interrupted")
    _, status = os.waitpid(process_id, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
