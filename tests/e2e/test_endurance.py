"""Test that many calls and crashes leak no resources."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.kits.serving import (
    PATIENCE,
    RawPeer,
    Serving,
    count_descriptors,
    open_serving,
)
from trio_supervisor import ConnectionLostError, open_client

pytestmark = pytest.mark.slow

CALLS = 20_000
IN_FLIGHT = 100
MEBIBYTE = 1024 * 1024

HARDENED = """
import trio
from trio_supervisor import Application, Service, SyncWorker, Worker

async def count(worker: Worker) -> None:
    await worker.ready()
    number = 0
    while True:
        number += 1
        await worker.status(str(number))
        await trio.sleep(0.005)

def work(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

application = Application(
    services=[
        Service("counter", count),
        Service("web", work, backend="sync", count=4, intensity=None, backoff=None),
    ],
)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve workers without a restart limit, and one that counts."""
    with open_serving(HARDENED) as serving:
        yield serving


def resident(process_id: int) -> int:
    """Return the resident memory of a process [bytes]."""
    pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def wait_descriptors(serving: Serving, process_id: int, most: int) -> None:
    """Wait until it holds no more descriptors: the last connection may be closing."""
    end = time.monotonic() + PATIENCE
    while (count := count_descriptors(process_id)) > most:
        assert time.monotonic() < end, f"{count} descriptors, and {most} before"
        serving.call("ping")


async def forward_many(serving: Serving, calls: int) -> None:
    """Make *count* calls to two workers, many in flight at a time."""

    async def client(names: list[str], calls: int) -> None:
        async with open_client(str(serving.socket)) as client:
            for number in range(calls):
                assert await client.forward(names[number % len(names)], "ping") == {}

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(client, ["web.0", "web.1"], calls // IN_FLIGHT)


async def test_twenty_thousand_calls_leak_nothing(serving: Serving) -> None:
    """The thousand connections that carry them leak nothing either."""
    supervisor = serving.when_ready()["supervisor"]["process_id"]
    with trio.fail_after(3 * PATIENCE):
        await forward_many(serving, CALLS // 5)  # one-time growth happens here
        serving.call("ping")
        descriptors, memory = count_descriptors(supervisor), resident(supervisor)

        await forward_many(serving, CALLS)

    serving.call("ping")
    assert resident(supervisor) - memory < 2 * MEBIBYTE
    wait_descriptors(serving, supervisor, descriptors)
    assert serving.call("workers")["supervisor"]["process_id"] == supervisor


def test_crashes_leak_no_descriptors(serving: Serving) -> None:
    """Thirty-two crashes happen, in eight rounds of four at once."""
    report = serving.when_ready()
    controller, supervisor = serving.process.pid, report["supervisor"]["process_id"]
    before = count_descriptors(controller), count_descriptors(supervisor)
    for _ in range(8):
        report = serving.when_ready()
        victims = [w for w in report["workers"] if w["service"] == "web"]
        for worker in victims:
            os.kill(worker["process_id"], signal.SIGKILL)
        # The log summarises repeated crashes.
        for worker in victims:
            restarts = worker["restarts"] + 1
            serving.wait_worker(worker["name"], state="ready", restarts=restarts)

    serving.when_ready()
    web = [w for w in serving.call("workers")["workers"] if w["service"] == "web"]
    assert [worker["restarts"] for worker in web] == [8, 8, 8, 8]
    wait_descriptors(serving, controller, before[0])
    wait_descriptors(serving, supervisor, before[1])


async def test_call_in_flight_when_supervisor_dies_fails_once(
    serving: Serving,
) -> None:
    """The caller gets a typed error; the workers are not affected."""
    before = serving.worker("counter.0")
    outcomes: list[object] = []

    async def call() -> None:
        async with open_client(str(serving.socket)) as client:
            try:
                outcomes.append(await client.forward(f"pid-{os.getpid()}", "think"))
            except ConnectionLostError as exc:
                outcomes.append(exc)

    with trio.fail_after(PATIENCE), RawPeer(serving.socket) as slow:
        state = {"process_id": os.getpid()}
        slow.ask(json.dumps({"id": 2, "do": "register", "state": state}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            asked = await trio.to_thread.run_sync(slow.receive)
            assert asked["do"] == "think"
            mark = serving.mark()
            serving.kill("supervisor")
        assert slow.receive() == {}

    (outcome,) = outcomes
    assert isinstance(outcome, ConnectionLostError)
    assert "'forward'" in str(outcome)
    serving.wait_event(since=mark, event="supervisor_connected", is_back=True)
    serving.when_ready()
    after = serving.worker("counter.0")
    for key in ("process_id", "incarnation", "restarts"):
        assert after[key] == before[key]
    # It kept counting from where it was.
    assert int(after["status"]) >= int(before["status"])
    later = serving.worker("counter.0")
    while later["status"] == after["status"]:
        later = serving.worker("counter.0")
    assert int(later["status"]) > int(after["status"])
