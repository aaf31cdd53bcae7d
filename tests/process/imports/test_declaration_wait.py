"""Waiting for a fork server's import: its progress, its failures and its answer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import trio

from trio_supervisor.errors import PlatformError, SpecError, TargetError
from trio_supervisor.process.imports import declaration_wait
from trio_supervisor.process.imports.declaration import read_answer
from trio_supervisor.process.imports.declaration_answer import error_answer
from trio_supervisor.process.imports.declaration_wait import read_file, wait_declared
from trio_supervisor.process.imports.import_report import last_place
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.fork_server_protocol import (
    fork_server_plan,
    kill_server,
    start_fork_server,
)

HANGING = """
import socket

def connect():
    ours, theirs = socket.socketpair()
    ours.recv(1)

connect()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")
async def test_wait_declared_hanging_import_logs_its_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line is logged repeatedly; a cancellation kills and reaps the server."""
    monkeypatch.setattr(declaration_wait, "_FIRST_PROGRESS", 0.5)
    monkeypatch.setattr(declaration_wait, "_NEXT_PROGRESS", (0.5,))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "service.py"
    path.write_text(HANGING)
    source = Reference(f"{path}:application", (str(tmp_path), *sys.path))
    server = start_fork_server(fork_server_plan("test", [source], dict(os.environ)))

    with trio.fail_after(60), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_declared, server, source.target, None)
            while "service.py, line 6" not in caplog.text:  # noqa: ASYNC110
                await trio.sleep(0.05)
            scope.cancel()

    assert "still importing service.py after" in caplog.text
    with pytest.raises(ChildProcessError):
        os.waitpid(server.process_id, 0)  # noqa: ASYNC222 (it is reaped)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")
async def test_wait_declared_returns_declaration_and_server_keeps_running(
    tmp_path: Path,
) -> None:
    path = tmp_path / "service.py"
    path.write_text(
        "from trio_supervisor import Application, Command\n"
        "application = Application([Command(f'a{i}', ['x' * 1000])"
        " for i in range(500)])\n"
    )
    source = Reference(f"{path}:application", (str(tmp_path), *sys.path))
    server = start_fork_server(fork_server_plan("test", [source], dict(os.environ)))
    with trio.fail_after(60):
        found = await wait_declared(server, source.target)
    assert len(found.application.services) == 500
    os.kill(server.process_id, 0)
    assert kill_server(server) in {0, -9}


TIMEOUT = """\
Timeout (0:00:01)!
Thread 0x00007f0acc71c6c0 (most recent call first):
  File "/usr/lib/python3/threading.py", line 982 in run

Thread 0x00007f0acd26db80 (most recent call first):
  File "<frozen importlib._bootstrap>", line 1 in _find
  File "/app/db.py", line 5 in connect
  File "/app/service.py", line 9 in <module>
"""
EXACT = 'Stack (most recent call first):\n  File "/app/a.py", line 7 in f\n'
FATAL = """\
Fatal Python error: Aborted

Thread 0x00007f0acc71c6c0 (most recent call first):
  File "/app/no.py", line 1 in run

Current thread 0x00007f0acd26db80 (most recent call first):
  File "/app/c.py", line 8 in <module>

Thread 0x00007f0acc71c6c1 (most recent call first):
  File "/app/no.py", line 2 in run

Extension modules: a.b (total: 1)
"""


@pytest.mark.parametrize(
    ("text", "place", "is_exact"),
    [
        pytest.param(TIMEOUT, "/app/db.py, line 5", False, id="every second"),
        pytest.param(TIMEOUT + EXACT, "/app/a.py, line 7", True, id="os._exit"),
        pytest.param(EXACT + TIMEOUT, "/app/db.py, line 5", False, id="the newest"),
        pytest.param(TIMEOUT + FATAL, "/app/c.py, line 8", True, id="fatal signal"),
        pytest.param(TIMEOUT + "Timeout (0:0", "/app/db.py, line 5", False, id="cut"),
    ],
)
def test_last_place_returns_line_of_newest_record(
    text: str, place: str, is_exact: bool
) -> None:
    found = last_place(text)
    assert found is not None
    assert (found.text, found.is_exact) == (place, is_exact)


@pytest.mark.parametrize("text", ["", "nonsense\n", '  File "/a.py", line 1 in x\n'])
def test_last_place_without_record_is_none(text: str) -> None:
    assert last_place(text) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"9" * 5000, id="a long number"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"application": {"services": 7}}', id="wrong type"),
        pytest.param(b'{"error": 7}', id="an error of unknown kind"),
    ],
)
def test_read_answer_invalid_data_raises_typed_error(data: bytes) -> None:
    with pytest.raises((TargetError, SpecError)) as caught:
        read_answer(data, "service.py")
    assert caught.value.exit_code == 10


def test_read_answer_error_keeps_class_and_exit_code() -> None:
    for error in (SpecError("web.count", "no"), PlatformError("no"), TargetError("x")):
        with pytest.raises(type(error)) as caught:
            read_answer(error_answer(error), "service.py")
        assert str(caught.value) == str(error)


def test_read_answer_ignores_invalid_fingerprints() -> None:
    data = {"application": {"services": [], "name": "x"}, "fingerprints": [1]}
    assert read_answer(json.dumps(data).encode(), "service.py").facts == {}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0.25", 0.25), ("NaN", None), ("-1.0", None), ("1e300", None), ('"1"', None)],
)
def test_read_answer_ignores_invalid_import_time(
    value: str, seconds: float | None
) -> None:
    text = '{"application": {"services": [], "name": "x"}, "import_seconds": %s}'
    declared = read_answer((text % value).encode(), "service.py")
    assert declared.import_seconds == seconds


def test_read_file_of_a_pipe_returns_nothing() -> None:
    """Reading a pipe would block."""
    read, write = os.pipe()
    assert read_file(read) == b""
    os.close(read)
    os.close(write)
    assert read_file(write) == b""
