"""Test which clients may connect, and as which process."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.kits.serving import PATIENCE, Serving, open_serving

NOBODY = 65534

SMALL = """
from trio_supervisor import Application, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

application = Application(services=[Service("web", work, backend="sync")])
"""

# Standard library only: another user may be unable to read our files.
AS_NOBODY = f"""
import os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    connection.connect(sys.argv[1])
except PermissionError:
    sys.exit("refused by the kernel")
connection.settimeout({PATIENCE})
try:
    connection.sendall(b'{{"id": 2, "do": "shutdown"}}\\n')
except BrokenPipeError:
    pass  # it was refused already; the answer is there
print(connection.makefile().readline(), end="")
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve one worker with a umask of 0."""
    with open_serving(SMALL, umask=0) as serving:
        yield serving


def connect_as_nobody(serving: Serving) -> subprocess.CompletedProcess[str]:
    """Try to call shutdown as another user."""
    return subprocess.run(
        [sys.executable, "-S", "-c", AS_NOBODY, str(serving.socket)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_socket_mode_is_0600_with_any_umask(serving: Serving) -> None:
    assert stat.S_IMODE(serving.socket.stat().st_mode) == 0o600


def test_lock_and_directory_are_private(serving: Serving) -> None:
    lock = serving.directory / "supervisor.ipc.lock"
    (private,) = (serving.directory / "tmp").glob("trio_supervisor-*")

    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@needs_root
def test_other_user_is_refused_by_file_mode(serving: Serving) -> None:
    serving.directory.chmod(0o755)

    finished = connect_as_nobody(serving)

    assert finished.stderr == "refused by the kernel\n"


@needs_root
def test_other_user_is_refused_by_credentials(serving: Serving) -> None:
    """The file's mode permits all users here."""
    serving.directory.chmod(0o755)
    serving.socket.chmod(0o666)
    try:
        finished = connect_as_nobody(serving)
    finally:
        serving.socket.chmod(0o600)

    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == {
        "finished": True,
        "failed": True,
        "error": {
            "class": "NotPermitted",
            "message": f"user {NOBODY} may not connect here",
        },
    }
    assert serving.call("ping") == {}
    assert serving.process.poll() is None


def test_register_as_other_process_is_refused(serving: Serving) -> None:
    process_id = serving.worker("web.0")["process_id"]
    state = json.dumps({"process_id": process_id, "name": "web.0"})

    with serving.peer() as peer:
        answer = peer.ask(f'{{"id": 2, "do": "register", "state": {state}}}')

    assert answer["failed"] is True
    assert answer["error"]["class"] == "NotPermitted"
    message = f"process {os.getpid()} may not register as process {process_id}"
    assert answer["error"]["message"] == message


def test_register_with_name_of_worker_is_renamed(serving: Serving) -> None:
    """An unmanaged process that claims to be web.0 is shown under another name."""
    state = json.dumps({"process_id": os.getpid(), "name": "web.0"})

    with serving.peer() as peer:
        registered = peer.ask(f'{{"id": 2, "do": "register", "state": {state}}}')

        report = serving.call("workers")["workers"]
        names = [(worker["name"], worker["is_managed"]) for worker in report]
        assert names == [("web.0", True), (f"pid-{os.getpid()}", False)]
        assert report[0]["connection_id"] != registered["connection_id"]
        answer = serving.call("forward", name="web.0", operation={"do": "ping"})
        assert answer == {}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        pytest.param("GET / HTTP/1.1", "RemoteProtocol", id="another protocol"),
        pytest.param(
            '{"id": "2", "do": "ping"}', "RemoteProtocol", id="id of a string"
        ),
        pytest.param("[" * 100_000, "LimitExceeded", id="an endless array"),
        pytest.param(
            '{"id": 2, "do": "call", "a": ' + "[" * 99 + "]" * 99 + "}",
            "LimitExceeded",
            id="nested too deep",
        ),
        pytest.param("x" * 8_400_000, "LimitExceeded", id="a line without an end"),
    ],
)
def test_invalid_input_gets_error_and_closes_connection(
    serving: Serving, line: str, error: str
) -> None:
    with serving.peer() as peer, serving.peer() as another:
        # It does not even wait for the newline.
        with suppress(BrokenPipeError, ConnectionResetError):
            peer.send(line)

        answer = peer.receive()
        assert answer["error"]["class"] == error
        assert "Traceback" not in answer["error"]["message"]
        assert another.ask('{"id": 2, "do": "ping"}') == {"id": 2, "finished": True}


def test_supervisor_survives_refused_clients(serving: Serving) -> None:
    """It is still in its first incarnation after all tests above."""
    report = serving.when_ready()

    assert report["supervisor"]["incarnation"] == 1
    assert [w["restarts"] for w in report["workers"]] == [0]
