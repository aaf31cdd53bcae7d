"""Services that start when a client connects."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from tests.kits.serving import Serving, open_serving

SERVICE = """
import os
import trio
from trio_supervisor import Application, Command, Listen, Service

async def answer(stream):
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(b"%d %s" % (os.getpid(), data))

async def serve(worker):
    inherited = trio.socket.from_stdlib_socket(worker.sockets["main"])
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            serve = trio.serve_listeners
            listener = trio.SocketListener(inherited)
            accepting.start_soon(lambda: serve(
                answer, [listener], handler_nursery=connections))
            await worker.ready()
            await worker.stopping.wait()
            accepting.cancel_scope.cancel()

async def fail(worker):
    raise SystemExit(7)

def cold(name, **options):
    sockets = {"main": Listen("unix://" + name)}
    return Service(name, serve, sockets=sockets, on_demand=True, **options)

application = Application([
    Command("always", ["sleep", "1000"]),
    *(cold(f"cold{number}") for number in range(30)),
    cold("idle", idle_timeout=0.5, depends_on={"cold0": "ready"}),
    Service("wrong", fail, on_demand=True, sockets={"main": Listen("unix://wrong")}),
])
"""


def connect(serving: Serving, name: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(os.fspath(serving.directory / name))
    return client


def ask(client: socket.socket) -> int:
    client.send(b"hello")
    process_id, _, text = client.recv(100).partition(b" ")
    assert text == b"hello"
    return int(process_id)


def test_services_start_at_their_first_connection() -> None:
    with open_serving(SERVICE) as serving:
        serving.when_ready()
        workers = {each["name"]: each for each in serving.call("workers")["workers"]}
        running = {name for name, each in workers.items() if each["process_id"]}
        assert running == {"always.0"}
        assert "(waiting for a connection)" in serving.cli("status", "cold7").stdout

        with connect(serving, "cold7") as client:
            serving.wait_worker("cold7.0", process_id=ask(client))
        # It keeps running, and only it.
        with connect(serving, "cold7") as client:
            first = ask(client)
        assert serving.worker("cold7.0")["process_id"] == first
        assert serving.worker("cold8.0")["process_id"] is None

        # A reload keeps what runs running, and what waits waiting.
        assert serving.cli("reload").returncode == 0
        with connect(serving, "cold7") as client, connect(serving, "cold9") as other:
            assert ask(client) != first
            serving.wait_worker("cold9.0", process_id=ask(other))
        assert serving.worker("cold8.0")["process_id"] is None

        # What is stopped by hand waits for `start`, and so do its clients.
        assert serving.cli("stop", "cold7").returncode == 0
        with connect(serving, "cold7") as client:
            assert serving.cli("status", "cold7").returncode == 0
            assert serving.worker("cold7.0")["process_id"] is None
            assert serving.cli("start", "cold7").returncode == 0
            serving.wait_worker("cold7.0", process_id=ask(client))


def test_idle_services_stop_and_lose_no_connection() -> None:
    with open_serving(SERVICE) as serving:
        serving.when_ready()
        with connect(serving, "idle") as client:
            first = ask(client)
            # What it needs was started first.
            assert serving.worker("cold0.0")["process_id"] is not None
            mark = serving.mark()
            with connect(serving, "cold1") as other:
                ask(other)
        serving.wait_line("no connection for 0.5 s (idle_timeout)", since=mark)
        serving.wait_worker("idle.0", state="stopped")
        assert serving.worker("cold1.0")["process_id"] is not None

        # Clients that come at any moment, also while it stops.
        answered: list[int] = []

        def come_and_go() -> None:
            for number in range(8):
                with connect(serving, "idle") as client:
                    answered.append(ask(client))
                threading.Event().wait(0.2 * (number % 5))

        clients = [threading.Thread(target=come_and_go) for _ in range(2)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        assert len(answered) == 16
        assert first not in answered


def test_what_others_need_is_not_idle() -> None:
    with open_serving(SERVICE) as serving:
        serving.when_ready()
        # `idle` needs `cold0`, which has no idle_timeout; `needed` has one.
        serving.edit(
            SERVICE.replace(
                "application = Application([",
                "application = Application([\n"
                "    cold('needed', idle_timeout=0.2),\n"
                "    Command('user', ['sleep', '1000'],"
                " depends_on={'needed': 'ready'}),",
            )
        )
        assert serving.cli("reload").returncode == 0
        serving.wait_worker("user.0", state="ready")
        with connect(serving, "idle") as client:
            ask(client)
        # When another one has been found idle, `needed` has been checked many times.
        serving.wait_line("idle.0", since=serving.mark())
        serving.wait_worker("idle.0", state="stopped")
        assert serving.worker("needed.0")["state"] == "ready"
        mark = serving.mark()
        assert serving.cli("stop", "user").returncode == 0
        serving.wait_line("no connection for 0.2 s (idle_timeout)", since=mark)
        serving.wait_worker("needed.0", state="stopped")


def test_what_is_no_longer_on_demand_starts_with_a_reload() -> None:
    with open_serving(SERVICE) as serving:
        serving.when_ready()
        assert serving.cli("stop", "cold3").returncode == 0
        assert "waiting for a connection" not in serving.cli("status", "cold3").stdout
        changed = SERVICE.replace("on_demand=True, **options", "**options")
        serving.edit(changed.replace("idle_timeout=0.5, ", ""))
        assert serving.cli("reload").returncode == 0
        serving.wait_worker("cold5.0", state="ready")
        serving.wait_worker("cold3.0", state="stopped")


def test_failed_start_is_tried_again_while_a_client_waits() -> None:
    with open_serving(SERVICE) as serving:
        serving.when_ready()
        with connect(serving, "wrong"):
            serving.wait_line("wrong: not started: ")
            mark = serving.mark()
            serving.wait_line("wrong: a client has connected; starting", since=mark)
        with connect(serving, "cold3") as client:
            ask(client)  # others are not held up


def test_removed_socket_file_is_made_again(tmp_path: Path) -> None:
    with open_serving(SERVICE) as serving:
        serving.when_ready()
        (serving.directory / "cold4").unlink()
        serving.until((serving.directory / "cold4").exists, "the file")
        with connect(serving, "cold4") as client:
            ask(client)
