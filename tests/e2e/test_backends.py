"""What a target gets from its `Worker`, under trio, asyncio and as a plain function."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kits.serving import Serving, open_serving

BACKENDS = ("trio", "asyncio", "sync")
ASYNC_BACKENDS = ("trio", "asyncio")
OVERDUE_TIMEOUT = 12.0

ALL_SORTS = f"""
import json
import time
import anyio
from trio_supervisor import Application, Service, SyncWorker, Worker

def record(worker, **what):
    with open(f"{{worker.name}}.jsonl", "a") as file:
        file.write(json.dumps(what) + "\\n")

def describe(worker):
    return dict(
        name=worker.name, service=worker.service, index=worker.index,
        incarnation=worker.incarnation, state=worker.state,
    )

async def polite(worker: Worker) -> None:
    worker.state["seen"] = worker.index
    record(worker, **describe(worker), is_set=worker.stopping.is_set())
    await worker.status("at work,\\nreally")
    await worker.healthy()
    await worker.ready()
    await worker.stopping.wait()
    with anyio.CancelScope():
        await anyio.sleep(0.3)
    record(worker, ended="by itself", is_set=worker.stopping.is_set())

def polite_sync(worker: SyncWorker) -> None:
    worker.state["seen"] = worker.index
    record(worker, **describe(worker), is_set=worker.stopping.is_set())
    worker.status("at work,\\nreally")
    worker.healthy()
    worker.ready()
    while not worker.stopping.wait(1000):
        pass
    time.sleep(0.3)
    record(worker, ended="by itself", is_set=worker.stopping.is_set())

async def unaware(worker: Worker) -> None:
    await worker.ready()
    try:
        await anyio.sleep(1000)
    finally:
        record(worker, ended="in its finally block")

def unaware_sync(worker: SyncWorker) -> None:
    try:
        worker.ready()
        time.sleep(1000)
    finally:
        record(worker, ended="in its finally block")

async def overdue(worker: Worker) -> None:
    await worker.ready()
    assert not worker.stopping.is_set()
    try:
        await anyio.sleep(1000)
    finally:
        record(worker, ended="in its finally block", is_set=worker.stopping.is_set())

def overdue_sync(worker: SyncWorker) -> None:
    assert not worker.stopping.is_set()
    try:
        worker.ready()
        while True:
            time.sleep(1000)
    finally:
        record(worker, ended="in its finally block", is_set=worker.stopping.is_set())

async def loop_name(worker: Worker) -> None:
    import sniffio
    await worker.status(sniffio.current_async_library())
    await worker.ready()
    await worker.stopping.wait()

services = []
for backend in ("trio", "asyncio", "sync"):
    def of(name):
        return globals()[name + "_sync" if backend == "sync" else name]
    services += [
        Service(f"polite-{{backend}}", of("polite"), backend=backend, count=2,
                state={{"role": "tester", "sizes": [1, 2]}}),
        Service(f"unaware-{{backend}}", of("unaware"), backend=backend,
                stop_timeout=60),
        Service(f"overdue-{{backend}}", of("overdue"), backend=backend,
                stop_timeout={OVERDUE_TIMEOUT}),
    ]
    if backend != "sync":
        services += [Service(f"loop-{{backend}}", loop_name, backend=backend)]
application = Application(services=services)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Three manners of target on three backends; each test stops its own."""
    with open_serving(ALL_SORTS) as serving:
        yield serving


def records(serving: Serving, name: str) -> list[dict[str, Any]]:
    """What the target of that worker wrote down."""
    path = serving.directory / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_knows_who_it_is(serving: Serving, backend: str) -> None:
    first = records(serving, f"polite-{backend}.1")[0]

    assert first["name"] == f"polite-{backend}.1"
    assert first["service"] == f"polite-{backend}"
    assert (first["index"], first["incarnation"]) == (1, 1)
    assert first["state"] == {"role": "tester", "sizes": [1, 2], "seen": 1}
    assert first["is_set"] is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_says_is_seen(serving: Serving, backend: str) -> None:
    """Its status on one line, and its own state beside what the agent adds."""
    worker = serving.worker(f"polite-{backend}.0")
    (connection,) = (
        connection
        for connection in serving.call("status")["connections"]
        if connection["connection_id"] == worker["connection_id"]
    )

    assert worker["status"] == "at work, really"
    assert connection["process_id"] == worker["process_id"]
    state = connection["state"]
    assert state["role"] == "tester"
    assert state["sizes"] == [1, 2]
    assert state["process_id"] == worker["process_id"]
    assert (state["name"], state["index"]) == (f"polite-{backend}.0", 0)


@pytest.mark.parametrize("backend", ASYNC_BACKENDS)
def test_it_runs_in_the_loop_that_was_asked_for(serving: Serving, backend: str) -> None:
    assert serving.worker(f"loop-{backend}.0")["status"] == backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_that_looks_at_stopping_is_trusted(serving: Serving, backend: str) -> None:
    serving.call("stop", names=[f"polite-{backend}.0"])

    last = records(serving, f"polite-{backend}.0")[-1]
    assert last == {"ended": "by itself", "is_set": True}
    exited = serving.wait_event(event="exited", name=f"polite-{backend}.0")
    assert exited["returncode"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_that_never_looks_is_ended_at_once(serving: Serving, backend: str) -> None:
    """Its finally blocks run. One that looks would have had most of a minute."""
    began = time.monotonic()

    serving.call("stop", names=[f"unaware-{backend}"])

    assert time.monotonic() - began < 30
    assert records(serving, f"unaware-{backend}.0") == [
        {"ended": "in its finally block"}
    ]
    exited = serving.wait_event(event="exited", name=f"unaware-{backend}.0")
    assert exited["returncode"] == 0


@pytest.fixture(scope="module")
def overdue(serving: Serving) -> dict[str, float]:
    """How long it took to stop each of those that look and go on [s]."""

    def stop(backend: str) -> float:
        began = time.monotonic()
        serving.call("stop", names=[f"overdue-{backend}"])
        return time.monotonic() - began

    with ThreadPoolExecutor(len(BACKENDS)) as pool:  # it takes a while
        return dict(zip(BACKENDS, pool.map(stop, BACKENDS), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_that_is_overdue_is_ended_before_its_time(
    serving: Serving, overdue: dict[str, float], backend: str
) -> None:
    """It looked and goes on: after four fifths of its time it is not asked any more.

    At the end of it the process would be killed.
    """
    assert overdue[backend] >= 0.8 * OVERDUE_TIMEOUT
    assert records(serving, f"overdue-{backend}.0") == [
        {"ended": "in its finally block", "is_set": True}
    ]
    exited = serving.wait_event(event="exited", name=f"overdue-{backend}.0")
    assert exited["returncode"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_next_one_knows_its_number(serving: Serving, backend: str) -> None:
    serving.call("restart", names=[f"polite-{backend}.1"])

    incarnations = [
        record["incarnation"]
        for record in records(serving, f"polite-{backend}.1")
        if "incarnation" in record
    ]
    assert incarnations == [1, 2]
    worker = serving.worker(f"polite-{backend}.1")
    assert (worker["incarnation"], worker["restarts"]) == (2, 1)
