"""What a server reports to its worker, and how it is stopped."""

from __future__ import annotations

import socket

import trio
import trio.testing

from trio_supervisor import Listen, Worker
from trio_supervisor.contrib.drain_times import DrainTimes
from trio_supervisor.contrib.serving import Serving, url_of
from trio_supervisor.contrib.traffic import Receive, Scope, Send, Traffic
from trio_supervisor.contrib.web_metrics import WEB_METRICS, RequestCounts
from trio_supervisor.testing import run_worker

PATIENCE = 30


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""


def serving_of(worker: Worker, limit: int | None = None) -> Serving:
    return Serving(
        worker=worker,
        traffic=Traffic(app, RequestCounts(worker.metrics), limit),
        sockets=list(worker.sockets.values()),
        listens=[Listen("tcp://127.0.0.1:0")] * len(worker.sockets),
        times=DrainTimes.within(10),
        server_options={},
        limit=limit,
    )


async def test_server_reports_its_address_and_the_drain() -> None:
    async def target(worker: Worker) -> None:
        serving = serving_of(worker)
        await serving.started()
        await serving.until_stop()

    with socket.create_server(("127.0.0.1", 0)) as listening, trio.fail_after(PATIENCE):
        sockets = {"http": listening}
        async with run_worker(target, sockets=sockets, metrics=WEB_METRICS) as running:
            await running.wait_ready()
            port = listening.getsockname()[1]
            assert running.status == f"http://127.0.0.1:{port}/"
        assert (running.status, running.is_ready) == ("draining", False)
        assert running.restart_reason is None


async def test_limit_of_requests_asks_for_a_restart_and_serves_on() -> None:
    """The worker drains when it is its turn, as at any other stop."""

    async def target(worker: Worker) -> None:
        serving = serving_of(worker, limit=1)
        await serving.started()
        await serving.traffic({"type": "http", "method": "GET"}, None, None)  # type: ignore[arg-type]
        await serving.until_stop()

    with trio.fail_after(PATIENCE):
        async with run_worker(target, metrics=WEB_METRICS) as running:
            await running.wait_ready()
            await trio.testing.wait_all_tasks_blocked()
            assert running.restart_reason == "1 requests (max_requests)"
            assert running.is_ready
        assert not running.is_ready


def test_url_has_the_port_that_the_kernel_chose() -> None:
    listen = Listen("tcp://127.0.0.1:0")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert url_of(listening, listen) == f"http://127.0.0.1:{port}/"
        assert url_of(listening, listen, "https") == f"https://127.0.0.1:{port}/"
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        assert url_of(listening, Listen("tcp://[::1]:0")) == f"http://[::1]:{port}/"


def test_url_of_a_unix_socket_is_the_declared_one() -> None:
    """The controller binds it by another name, and renames it."""
    with socket.socket(socket.AF_UNIX) as listening:
        url = url_of(listening, Listen("unix:///run/web.sock"))
    assert url == "unix:///run/web.sock"


def test_backlog_is_the_smallest_of_the_sockets() -> None:
    """A server has one option for all of them."""
    listens = [Listen("unix://a", backlog=7), Listen("unix://b")]
    serving = Serving(
        worker=None,  # type: ignore[arg-type]
        traffic=None,  # type: ignore[arg-type]
        sockets=[],
        listens=listens,
        times=DrainTimes.within(1),
        server_options={},
    )
    assert serving.backlog == 7
