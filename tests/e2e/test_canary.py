"""Test a reload with a canary: of a good release, and of some that are not."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.kits.serving import PATIENCE, RawPeer, Serving, open_serving

SERVICE = """
import os
import time
import trio
from trio_supervisor import Application, Counter, Listen, Metrics, Service, Worker

MODE = "good"

async def web(worker: Worker) -> None:
    (sock,) = worker.sockets.values()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    await worker.status(f"port={sock.getsockname()[1]}")
    await worker.ready()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(misbehave, worker)
        while True:
            async with await listener.accept() as stream:
                await stream.send_all(b"%d" % worker.generation)

async def misbehave(worker: Worker) -> None:
    kept = []
    while True:
        await trio.sleep(0.01)
        match MODE:
            case "crash":
                os._exit(3)
            case "leak":
                kept.append(b"x" * (1 << 20))
            case "errors":
                worker.metrics.errors_total.inc()
            case "block":
                time.sleep(0.25)

application = Application([
    Service("web", web, count=3, health_check_timeout=1.0, stable_for=0,
            metrics=Metrics(errors_total=Counter()),
            sockets={"http": Listen("tcp://127.0.0.1:0")}),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve for all tests; each leaves a good generation."""
    with open_serving(SERVICE) as serving:
        yield serving


def reload(
    serving: Serving, mode: str, *words: str
) -> subprocess.CompletedProcess[str]:
    serving.edit(SERVICE.replace('MODE = "good"', f"MODE = {mode!r}"))
    return serving.cli("reload", "--canary", "1", *words)


def generations_that_answer(port: int, count: int) -> set[int]:
    """Connect until workers of *count* generations have answered."""
    found: set[int] = set()
    while len(found) < count:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as stream:
            found.add(int(stream.recv(9)))
    return found


def test_good_release_follows_its_canary(serving: Serving) -> None:
    """Which takes a part of the traffic, and `status` shows it."""
    number = int(serving.worker("web.0")["generation"])
    port = int(re.findall(r"port=(\d+)", serving.worker("web.0")["status"])[0])
    since = serving.mark()
    done: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: done.append(reload(serving, "good ", "--for", "1.5"))
    )
    thread.start()
    serving.wait_event(since=since, event="canary_started")
    assert generations_that_answer(port, 2) == {number, number + 1}
    table = serving.cli("status").stdout
    thread.join()
    assert f"canary of generation {number + 1}: web.2; compared" in table
    rows = [line.split()[:2] for line in table.splitlines()[3:]]
    assert [name for name, gen in rows if gen == str(number + 1)] == ["web.2"]
    assert done[0].returncode == 0, done[0].stderr
    assert "canary passed after 1.5 s: web.2\n" in done[0].stdout
    workers = serving.call("workers")["workers"]
    assert {worker["generation"] for worker in workers} == {number + 1}


@pytest.mark.parametrize(
    ("mode", "words", "reason"),
    [
        (
            "crash",
            ("--for", "60"),
            r"web\.2 of the new generation exited 3 times in .* \(exit code 3\); no "
            r"worker of the old one did\n",
        ),
        (
            "leak",
            ("--for", "4"),
            r"web\.2 of the new generation uses .* MiB of memory after .*\n",
        ),
        (
            "errors",
            ("--for", "60"),
            r"web\.2 of the new generation counted \d+ errors in .*\n",
        ),
        (
            "block",
            ("--for", "1.5"),
            r"the event loop of web\.2 of the new generation was late .*\n",
        ),
    ],
    ids=["crash", "leak", "errors", "block"],
)
def test_bad_release_is_rolled_back(
    serving: Serving, mode: str, words: tuple[str, ...], reason: str
) -> None:
    before = serving.pids()
    since = serving.mark()
    done = reload(serving, mode, *words)
    assert done.returncode == 1
    assert re.fullmatch(rf"trio-supervisor: Reload: rolled back: {reason}", done.stderr)
    assert serving.pids() == before, "an old worker was restarted"
    problem = serving.wait_event(since=since, event="canary_failed")["problem"]
    assert problem in done.stderr
    failed = serving.wait_event(since=since, event="reload_failed")
    assert failed["problem"] == f"rolled back: {problem}"


def test_client_that_hangs_up_does_not_end_the_canary(serving: Serving) -> None:
    serving.edit(SERVICE)
    since = serving.mark()
    peer: RawPeer
    with serving.peer() as peer:
        peer.send('{"id":2,"do":"reload","canary":1,"canary_for":0.5}')
        serving.wait_event(since=since, event="canary_started")
    serving.wait_event(since=since, event="canary_passed")
    serving.wait_event(since=since, event="reloaded")


def test_bad_numbers_are_refused(serving: Serving) -> None:
    with serving.peer() as peer:
        for fields, problem in (
            ('"canary":0', "canary"),
            ('"canary":1,"canary_for":0', "canary_for"),
            ('"canary":1,"canary_for":100000', "canary_for"),
            ('"canary_for":5', "canary_for: has no effect without canary"),
            ('"canary":1,"dry_run":true', "canary: cannot be combined with dry_run"),
        ):
            answer = peer.ask(f'{{"id":2,"do":"reload",{fields}}}')
            assert answer["failed"], fields
            assert problem in answer["error"]["message"]
