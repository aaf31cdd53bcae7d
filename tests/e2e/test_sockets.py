"""Test listening sockets that stay open while their workers change."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kits.serving import PATIENCE, Serving, open_serving

SERVICE = """
import trio
from trio_supervisor import Application, Command, Listen, Service, Worker

WORD = "one"

async def web(worker: Worker) -> None:
    async def answer(stream):
        async with stream:
            await stream.receive_some(100)
            await stream.send_all(f"{WORD} {worker.name}\\n".encode())

    listeners = [
        trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        for sock in worker.sockets.values()
    ]
    await worker.status(" ".join(
        f"{name}={listener.socket.getsockname()[1]}"
        for name, listener in zip(worker.sockets, listeners)
    ))
    async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:
        # What was accepted is answered, also after the accepting was cancelled.
        for listener in listeners:
            nursery.start_soon(accept, listener, answer, handlers)
        await worker.ready()
        await worker.stopping.wait()
        nursery.cancel_scope.cancel()

async def accept(listener, answer, handlers):
    while True:
        handlers.start_soon(answer, await listener.accept())

application = Application([
    Service("web", web, count=2, backoff=None, intensity=None,
            sockets={"http": Listen("tcp://127.0.0.1:0")}),
    Service("each", web, count=2,
            sockets={"each": Listen("tcp://127.0.0.1:0", reuse_port=True)}),
    Service("local", web,
            sockets={"local": Listen("unix://tmp/local.sock", mode=0o660)}),
    Command("program", ["sh", "-c",
        'echo "$LISTEN_FDS $LISTEN_FDNAMES $([ $LISTEN_PID = $$ ] && echo mine)" >&2; '
        'readlink /proc/self/fd/3 /proc/self/fd/4 >&2; exec sleep 1000'],
        sockets={"first": Listen("tcp://127.0.0.1:0"),
                 "second": Listen("tcp://[::1]:0")}),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE) as serving:
        yield serving


def port(serving: Serving, name: str) -> int:
    found = re.search(r"=(\d+)", serving.worker(name)["status"])
    assert found, serving.worker(name)
    return int(found[1])


def ask(address: tuple[str, int] | str) -> str:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        client.sendall(b"hello\n")
        with client.makefile("r") as file:
            return file.readline().strip()


class Load:
    """Clients that connect all the time, with the answers they got."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.answers: list[tuple[float, str]] = []
        """Answers, each with the time at which the client began [s, monotonic]."""
        self.problems: list[str] = []
        self._address = address
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def _run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            try:
                answer = ask(self._address)
            except OSError as exc:
                self.problems.append(repr(exc))
            else:
                self.answers.append((began, answer or "hung up"))

    def words(self, since: float = 0) -> set[str]:
        """Return the first words of the answers to clients that began *since* then."""
        return {said.split()[0] for began, said in self.answers if began >= since}

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join(PATIENCE)


def test_reload_and_restart_refuse_and_reset_no_connection(
    serving: Serving,
) -> None:
    number = port(serving, "web.0")
    load = Load(("127.0.0.1", number))
    with load.running():
        for word in ("two", "six", "one"):
            serving.edit(SERVICE.replace('"one"', f'"{word}"'))
            assert serving.cli("reload").returncode == 0
            since = time.monotonic()
            assert ask(("127.0.0.1", number)).startswith(f"{word} web.")
            assert load.words(since) <= {word}
        assert serving.cli("restart", "web").returncode == 0
        assert serving.cli("restart", "web", "--rolling").returncode == 0
        assert serving.cli("scale", "web=1").returncode == 0
        assert serving.cli("scale", "web=2").returncode == 0
        # A worker that stops gracefully drops no connection, whatever the reason.
        for name in ("web.0", "web.1") * 3:
            since = serving.mark()
            os.kill(serving.pids()[name], signal.SIGTERM)
            serving.wait_event(since=since, event="ready", name=name)
            serving.wait_worker(name, state="ready")

    assert load.problems == []
    assert load.words() == {"one", "two", "six"}  # no connection was closed early
    assert len(load.answers) > 100
    assert port(serving, "web.0") == number


def test_connection_waits_without_workers(serving: Serving) -> None:
    number = port(serving, "web.0")
    serving.cli("stop", "web")
    with socket.create_connection(("127.0.0.1", number), PATIENCE) as client:
        client.sendall(b"hello\n")
        assert serving.cli("start", "web").returncode == 0
        assert client.recv(100).startswith(b"one web.")


def test_reuse_port_gives_each_worker_its_socket(serving: Serving) -> None:
    """A scaled-down worker leaves no socket behind: no process would accept on it."""
    numbers = {port(serving, "each.0"), port(serving, "each.1")}
    assert len(numbers) == 1
    [number] = numbers
    answers = {ask(("127.0.0.1", number)) for _ in range(64)}
    assert answers == {"one each.0", "one each.1"}

    assert serving.cli("scale", "each=1").returncode == 0

    assert {ask(("127.0.0.1", number)) for _ in range(32)} == {"one each.0"}


def test_unix_socket_has_declared_mode(serving: Serving) -> None:
    path = serving.directory / "tmp" / "local.sock"

    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert ask(str(path)) == "one local.0"


def test_command_gets_sockets_as_from_systemd(serving: Serving) -> None:
    serving.printed("program.0", "2 first:second mine")
    printed = serving.select(name="program.0", stream="stderr")
    sockets = [line for line in printed if line["message"].startswith("socket:")]
    assert len(sockets) == 2


def test_address_in_use_fails_reload_and_serve(
    serving: Serving,
) -> None:
    number = port(serving, "web.0")
    with socket.create_server(("127.0.0.1", 0)) as other:
        other_number = other.getsockname()[1]
        taken = SERVICE.replace('"tcp://[::1]:0"', f'"tcp://127.0.0.1:{other_number}"')
        serving.edit(taken)

        failed = serving.cli("reload")

        serving.edit(SERVICE)
        assert failed.returncode == 1
        assert f"127.0.0.1:{other_number}" in failed.stderr
        assert ask(("127.0.0.1", number)).startswith("one ")
        with open_serving(taken, is_ready=False) as refused:
            assert refused.wait_exit() == 16
            assert f"127.0.0.1:{other_number}" in refused.lines[-1]
            assert refused.process_ids() == []


def test_unix_socket_file_is_removed_at_end(serving: Serving) -> None:
    assert serving.terminate() == 0
    assert not (serving.directory / "tmp" / "local.sock").exists()


ACTIVATE = """
import os, sys
number = int(sys.argv[1])
os.dup2(number, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_service_manager_sockets_are_used() -> None:
    """Sockets with a declared name are used; no child inherits the others."""
    web = SERVICE[: SERVICE.index('    Service("each"')]
    source = web.replace("127.0.0.1:0", "127.0.0.1:1") + (
        '    Command("curious", ["sh", "-c", "echo fds=$LISTEN_FDS pid=$LISTEN_PID'
        ' >&2; exec sleep 1000"]),\n])\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as given:
        os.set_inheritable(given.fileno(), True)
        address = given.getsockname()
        prefix = [sys.executable, "-c", ACTIVATE, str(given.fileno())]
        with open_serving(source, prefix=prefix, pass_fds=[given.fileno()]) as serving:
            serving.printed("curious.0", "fds= pid=")
            assert ask(address).startswith("one web.")
            assert serving.cli("reload").returncode == 0
            assert ask(address).startswith("one web.")
            assert serving.terminate() == 0
        # It belongs to the service manager and still listens.
        given.settimeout(PATIENCE)
        with socket.create_connection(address, PATIENCE):
            given.accept()[0].close()
