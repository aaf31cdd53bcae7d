"""Errors of ``serve``: a message that says what to do, and an exit code for each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    ISSUE_SERVICE,
    PATIENCE,
    RawPeer,
    environment_of_children,
    open_serving,
    run_cli,
    short_directory,
)

HEADER = """
from trio_supervisor import *
async def work(worker): await worker.ready()
"""
SERVICE = "Service('web', work)"

BAD_TARGETS = {
    "no file": (None, "service.py: file not found"),
    "no application": ("x = 1", "service.py has no 'application'; define one as: "),
    "another name": (
        f"app = Application(services=[{SERVICE}])",
        "service.py has no 'application'; name one of: service.py:app",
    ),
    "not an Application": (
        "application = [1]",
        "service.py: 'application' is of type list, expected an Application",
    ),
    "not Python": ("def", "service.py, line 5: SyntaxError: "),
    "an import that fails": (
        "import no_such_module",
        "service.py, line 5: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "an error of its own": (
        "def fail():\n    raise LookupError('so there')\nfail()",
        "service.py, line 6: LookupError: so there",
    ),
    "an exit": ("exit(3)", "service.py, line 5: SystemExit: 3"),
    "wrong type": (
        "application = Application(services=[Service('web', work, count='4')])",
        "service.py, line 5: count: expected a whole number, got '4'",
    ),
    "count below zero": (
        "application = Application(services=[Service('web', work, count=-1)])",
        "service.py, line 5: count: expected 0 or more, got -1",
    ),
    "unknown field": (
        "application = Application(services=[Service('web', work, cuont=4)])",
        "service.py, line 5: TypeError: Service.__init__() got an unexpected keyword "
        "argument 'cuont'",
    ),
    "two services of one name": (
        f"application = Application(services=[{SERVICE}, {SERVICE}])",
        "service.py, line 5: services[1].name: services[0] has the name 'web' already",
    ),
    "not a service": (
        "application = Application(services=[work])",
        "service.py, line 5: services[0]: expected a Service or a Command, got ",
    ),
    "not a function": (
        "application = Application(services=[Service('web', 'work')])",
        "service.py, line 5: target: expected a function, got 'work'",
    ),
    "a bad name": (
        "application = Application(services=[Service('web.0', work)])",
        "service.py, line 5: name: expected up to 64 letters, digits, ",
    ),
    "an unknown backend": (
        "application = Application(services=[Service('web', work, backend='curio')])",
        "service.py, line 5: backend: expected one of 'trio', 'asyncio', 'sync', got ",
    ),
    "an unknown policy": (
        "application = Application(services=[Service('web', work, restart='maybe')])",
        "service.py, line 5: restart: expected one of 'always', 'on-failure', 'never'",
    ),
    "a monitor's mistake": (
        "MemoryMonitor(interval=0)",
        "service.py, line 5: interval: expected more than 0 s, got 0",
    ),
    "not a monitor": (
        "application = Application(services=[], monitors=[MemoryMonitor])",
        "service.py, line 5: monitors[0]: expected a Monitor ",
    ),
    "a command's mistake": (
        "application = Application(services=[Command('redis', 'redis-server')])",
        "service.py, line 5: arguments: expected a list: the program and its arguments",
    ),
}


@pytest.mark.parametrize(("source", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_invalid_target_is_a_one_line_error(source: str | None, message: str) -> None:
    """The message names line and field; nothing was started, no file is left."""
    with short_directory() as directory:
        if source is not None:
            (directory / "service.py").write_text(f"{HEADER}\n{source}\n")

        finished = run_cli("serve", "service.py", directory=directory)

        assert finished.stderr.startswith(f"trio-supervisor: {message}")
        assert finished.returncode == 10
        assert finished.stderr.count("\n") == 1
        assert finished.stdout == ""
        assert set(os.listdir(directory)) <= {"service.py", "__pycache__"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module", "no module named 'no_such_module'"),
        ("package.no_such", "no module named 'package.no_such'"),
        ("package.module:nothing", "package.module has no 'nothing'; name one of: "),
        (":application", "':application' names neither a file nor a module"),
        ("a-b", "'a-b' is neither a path ending in .py nor a module name"),
    ],
)
def test_invalid_module_is_a_one_line_error(target: str, message: str) -> None:
    with short_directory() as directory:
        write_package(directory)

        finished = run_cli("serve", target, directory=directory)

        assert finished.stderr.startswith(f"trio-supervisor: {message}")
        assert finished.returncode == 10
        assert "Traceback" not in finished.stderr


def write_package(directory: Path) -> None:
    """Write `package.module`, with an application and one of another name."""
    (directory / "package").mkdir()
    (directory / "package" / "__init__.py").write_text("")
    (directory / "package" / "module.py").write_text(
        f"{HEADER}\napplication = Application(services=[])\nother = application\n"
    )


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("package.module", "supervisor.ipc"),
        ("package.module:other", "supervisor.ipc"),
        ("package/module.py", "package/supervisor.ipc"),
        ("./package/module.py:other", "package/supervisor.ipc"),
    ],
)
def test_target_may_be_a_path_or_a_module(target: str, where: str) -> None:
    """The socket is beside the file, or in the current directory for a module."""
    with short_directory() as directory:
        write_package(directory)
        with subprocess.Popen(
            [*COMMAND, "serve", target],
            cwd=directory,
            env=environment_of_children(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                finished = run_cli(
                    *("status", "--wait-ready", "--socket", where), directory=directory
                )
            finally:
                process.send_signal(signal.SIGINT)
                _, log = process.communicate(timeout=PATIENCE)

        assert finished.returncode == 0, log
        assert process.returncode == 0
        assert f"serving at {directory / where}" in log
        assert not (directory / where).exists()


def test_second_serve_at_a_live_socket_exits_with_11() -> None:
    with open_serving() as serving:
        before = serving.call("workers")["workers"]

        finished = serving.cli("serve", "service.py")

        assert finished.returncode == 11
        assert finished.stderr == (
            f"trio-supervisor: another controller is already serving on "
            f"{serving.socket}; stop it, "
            f"or choose another socket with --socket\n"
        )
        after = serving.call("workers")["workers"]
        assert [w["process_id"] for w in after] == [w["process_id"] for w in before]


def test_live_socket_of_another_program_is_kept() -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text(
            f"{HEADER}\napplication = Application(services=[])"
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as living:
            living.bind(str(directory / "supervisor.ipc"))
            living.listen()

            finished = run_cli("serve", "service.py", directory=directory)

            assert finished.returncode == 11
            assert "another process is already serving on" in finished.stderr
            assert (directory / "supervisor.ipc").is_socket()


def test_stale_socket_is_replaced() -> None:
    """A controller that was killed leaves its socket file."""
    with open_serving() as serving:
        serving.process.kill()
        serving.wait_exit()
        serving.wait_nothing_left()
        assert serving.socket.is_socket()
        with subprocess.Popen(
            [*COMMAND, "serve", "service.py"],
            cwd=serving.directory,
            env=environment_of_children(),
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                finished = serving.cli("status", "--wait-ready", "--timeout", "30")
            finally:
                process.send_signal(signal.SIGTERM)

        assert finished.returncode == 0
        assert process.returncode == 0
        assert serving.files() == set()


def test_too_long_socket_path_exits_with_12() -> None:
    with short_directory() as directory:
        deep = directory / ("d" * 50) / ("e" * 50)
        deep.mkdir(parents=True)
        (deep / "service.py").write_text(
            f"{HEADER}\nprint('imported')\napplication = Application([{SERVICE}])"
        )
        path = deep / "supervisor.ipc"

        finished = run_cli("serve", "service.py", directory=deep)

        assert finished.returncode == 12
        assert finished.stderr == (
            f"trio-supervisor: the socket path is {len(str(path))} bytes long "
            f"(maximum 107); choose a shorter one with --socket: {path}\n"
        )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("missing/s.ipc", "the socket directory does not exist: "),
        ("service.py", "the file at the socket path is no socket: "),
    ],
)
def test_unusable_socket_path_exits_with_12(where: str, message: str) -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text(
            f"{HEADER}\napplication = Application([{SERVICE}])"
        )

        finished = run_cli(
            "serve", "service.py", "--socket", where, directory=directory
        )

        assert finished.returncode == 12
        assert finished.stderr.startswith(f"trio-supervisor: {message}")
        assert finished.stderr.count("\n") == 1


def test_socket_path_is_taken_from_the_environment() -> None:
    with (
        short_directory() as elsewhere,
        open_serving(
            environment={"TRIO_SUPERVISOR_SOCKET": str(elsewhere / "s.ipc")},
            is_ready=False,
        ) as serving,
    ):
        serving.wait_event(event="serving", socket=str(elsewhere / "s.ipc"))
        with RawPeer(elsewhere / "s.ipc") as peer:
            assert peer.ask('{"id": 2, "do": "ping"}') == {"id": 2, "finished": True}
        found = run_cli(
            *("ping", "--json"),
            directory=Path("/"),
            TRIO_SUPERVISOR_SOCKET=str(elsewhere / "s.ipc"),
        )
        assert found.returncode == 0


_IN_REMOVED_DIRECTORY = 'cd "$0" && rmdir "$0" && exec "$@"'


@pytest.mark.parametrize("words", [["serve", "service.py"], ["status"]])
def test_removed_working_directory_is_reported(words: list[str]) -> None:
    """Relative paths cannot be resolved there."""
    with short_directory() as directory:
        gone = directory / "gone"
        gone.mkdir()
        done = subprocess.run(
            ["sh", "-c", _IN_REMOVED_DIRECTORY, str(gone), *COMMAND, *words],
            env=environment_of_children(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    assert done.returncode == (10 if words[0] == "serve" else 3)
    (line,) = done.stderr.splitlines()
    assert line.endswith("the current directory was removed; change to another one")


def test_removed_working_directory_is_allowed_with_absolute_paths() -> None:
    with short_directory() as directory:
        gone = directory / "gone"
        gone.mkdir()
        (directory / "service.py").write_text(ISSUE_SERVICE, encoding="utf-8")
        path = str(directory / "service.py")
        with subprocess.Popen(
            ["sh", "-c", _IN_REMOVED_DIRECTORY, str(gone), *COMMAND, "serve", path],
            env=environment_of_children(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert any("workers ready" in line for line in process.stderr)
            process.terminate()
            process.stderr.read()
        assert process.returncode == 0
