"""Test startup, readiness and liveness, by probes and by workers themselves."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import os
import trio
from trio_supervisor import Application, Command, Probe, Service, Worker

fast = {"interval": 0.02, "timeout": 5, "failures": 2}

def file(name, **more):
    return Probe.command(["test", "-e", f"tmp/{name}"], **{**fast, **more})

patient = file("starts", failures=1_000_000)

async def moody(worker: Worker) -> None:
    await worker.ready()
    while not worker.stopping.is_set():
        is_bad = os.path.exists("tmp/moody-is-bad")
        await (worker.unready("no\\ndatabase") if is_bad else worker.ready())
        await trio.sleep(0.02)

application = Application([
    Service("moody", moody),
    Command("starts", ["sleep", "1000"], startup=patient),
    Command("never", ["sleep", "1000"], startup=file("never"), restart="never"),
    Command("reads", ["sleep", "1000"], readiness=file("reads")),
    Command("lives", ["sleep", "1000"], startup=patient, liveness=file("lives")),
    Command("web", ["sleep", "1000"],
            readiness=Probe.http("http://127.0.0.1:PORT/ready?x=1", **fast,
                                 answered_by="anyone")),
    Command("port", ["sleep", "1000"],
            readiness=Probe.tcp("127.0.0.1:PORT", **fast, answered_by="anyone")),
    Command("slow", ["sleep", "1000"], restart="never",
            liveness=Probe.command(["sleep", "1000"], interval=0.02, timeout=0.1,
                                   failures=1, delay=0.2)),
])
"""


class Asked(BaseHTTPRequestHandler):
    """A server that answers as the test says and records the requests."""

    status = 503
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        Asked.requests.append(self.requestline)
        self.send_response(Asked.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def http_server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with http_server() as port:
        source = SERVICE.replace("PORT", str(port))
        with open_serving(source, is_ready=False) as serving:
            serving.wait_event(event="supervisor_connected")
            yield serving


def put(serving: Serving, name: str, *, is_there: bool = True) -> int:
    since = serving.mark()
    path = serving.directory / "tmp" / name
    path.touch() if is_there else path.unlink()
    return since


def test_startup_probe_decides_readiness(serving: Serving) -> None:
    """No other probe runs until then: the other command's liveness would fail."""
    serving.wait_event(event="exited", name="never.0")  # both were probed until now
    assert serving.worker("starts.0")["state"] == "starting"
    assert serving.worker("lives.0")["state"] == "starting"
    put(serving, "lives")

    put(serving, "starts")

    serving.wait_worker("starts.0", state="ready", restarts=0)
    serving.wait_worker("lives.0", state="ready", restarts=0)


def test_startup_probe_failure_replaces_process(serving: Serving) -> None:
    exited = serving.wait_event(event="exited", name="never.0")

    assert not exited["is_planned"]
    stopping = serving.wait_event(event="stopping", name="never.0")
    assert stopping["cause"] == "startup_timeout"
    serving.wait_line("startup probe test -e tmp/never failed 2 times in a row")
    serving.wait_worker("never.0", state="failed")


def test_readiness_probe_changes_state_without_restart(serving: Serving) -> None:
    before = serving.worker("reads.0")
    assert before["state"] == "starting"

    put(serving, "reads")
    serving.wait_worker("reads.0", state="ready")
    since = put(serving, "reads", is_there=False)
    serving.wait_event(since=since, event="unready", name="reads.0")
    worker = serving.wait_worker("reads.0", state="unready")
    put(serving, "reads")
    serving.wait_worker("reads.0", state="ready")

    assert worker["process_id"] == before["process_id"]
    assert serving.worker("reads.0")["process_id"] == before["process_id"]


def test_liveness_probe_failure_replaces_process(serving: Serving) -> None:
    before = serving.wait_worker("lives.0", state="ready")["process_id"]
    put(serving, "starts", is_there=False)  # the replacement does not become ready yet

    since = put(serving, "lives", is_there=False)

    stopping = serving.wait_event(since=since, event="stopping", name="lives.0")
    put(serving, "lives")
    put(serving, "starts")
    assert stopping["cause"] == "unhealthy"
    exited = serving.wait_event(since=since, event="exited", name="lives.0")
    assert not exited["is_planned"]
    again = serving.wait_event(since=since, event="ready", name="lives.0")
    assert again["process_id"] != before
    worker = serving.wait_worker("lives.0", process_id=again["process_id"])
    assert worker["reason"].startswith("liveness probe test -e ")
    assert worker["reason"].endswith(" failed 2 times in a row (liveness.failures)")


def test_liveness_probe_that_hangs_fails(serving: Serving) -> None:
    stopping = serving.wait_event(event="stopping", name="slow.0")
    started = serving.wait_event(event="started", name="slow.0")

    assert stopping["cause"] == "unhealthy"
    assert stopping["at"] - started["at"] >= 0.29


def test_http_and_tcp_probes(serving: Serving) -> None:
    """TCP needs a connection; HTTP needs a status from 200 to 399."""
    serving.wait_worker("port.0", state="ready")
    assert serving.worker("web.0")["state"] == "starting"
    Asked.status = 302
    serving.wait_worker("web.0", state="ready")
    assert Asked.requests[0] == "GET /ready?x=1 HTTP/1.1"
    Asked.status = 404
    serving.wait_worker("web.0", state="unready", restarts=0)


def test_worker_unready_is_shown(serving: Serving) -> None:
    before = serving.wait_worker("moody.0", state="ready")

    since = put(serving, "moody-is-bad")

    unready = serving.wait_event(since=since, event="unready", name="moody.0")
    assert unready["reason"] == "no database"
    assert unready["level"] == "warning"
    serving.wait_worker("moody.0", state="unready", status="no database")
    assert serving.cli("probe", "liveness").returncode == 0
    answer = serving.cli("probe", "readiness")
    assert answer.returncode == 1
    assert "moody" in answer.stdout
    put(serving, "moody-is-bad", is_there=False)
    after = serving.wait_worker("moody.0", state="ready")
    assert after["process_id"] == before["process_id"]


def get(address: str, path: str) -> tuple[int, str]:
    """GET *path* over HTTP at ``HOST:PORT`` or ``unix:PATH``."""
    is_unix = address.startswith("unix:")
    with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as client:
        client.settimeout(30)
        host, _, port = address.rpartition(":")
        client.connect(port if is_unix else (host, int(port)))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        with client.makefile("rb") as file:
            status, _, body = file.read().partition(b"\r\n\r\n")
    return int(status.split()[1]), body.decode()


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix:tmp/health.sock"])
def test_health_is_answered_over_http(where: str) -> None:
    source = SERVICE[: SERVICE.index('    Command("never"')] + "])\n"
    with open_serving(source, is_ready=False, words=["--http", where]) as serving:
        line = serving.wait_line("health checks at http://")
        address = line.partition("health checks at http://")[2].split('"')[0]
        if where.startswith("unix"):
            address = f"unix:{serving.directory}/tmp/health.sock"
        serving.wait_event(event="ready", name="moody.0")

        assert get(address, "/livez") == (200, "ok\n")
        assert get(address, "/startupz")[0] == 503
        assert get(address, "/readyz")[0] == 503
        assert "starts.0" in get(address, "/startupz?verbose")[1]
        assert get(address, "/other")[0] == 404
        put(serving, "starts")
        serving.wait_event(event="all_ready")
        assert get(address, "/startupz")[0] == 200
        assert get(address, "/readyz") == (200, "ok\n")
        put(serving, "moody-is-bad")
        serving.wait_event(event="unready", name="moody.0")
        assert get(address, "/readyz?verbose")[0] == 503
        assert get(address, "/startupz")[0] == 200
        for kind in ("liveness", "startup"):
            assert serving.cli("probe", kind).returncode == 0
        assert serving.terminate() == 0
        assert not os.path.exists(serving.directory / "tmp" / "health.sock")


def test_probe_without_supervisor_exits_3(serving: Serving) -> None:
    assert serving.cli("probe", "liveness", "--socket", "none").returncode == 3
    assert serving.cli("probe", "health").returncode == 2
