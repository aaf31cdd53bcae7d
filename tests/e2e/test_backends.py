"""Test what a target gets from its `Worker` on each backend."""

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
    record(worker, ended="on its own", is_set=worker.stopping.is_set())

def polite_sync(worker: SyncWorker) -> None:
    worker.state["seen"] = worker.index
    record(worker, **describe(worker), is_set=worker.stopping.is_set())
    worker.status("at work,\\nreally")
    worker.healthy()
    worker.ready()
    while not worker.stopping.wait(1000):
        pass
    time.sleep(0.3)
    record(worker, ended="on its own", is_set=worker.stopping.is_set())

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
    """Serve three kinds of targets on each backend; each test stops its own."""
    with open_serving(ALL_SORTS) as serving:
        yield serving


def records(serving: Serving, name: str) -> list[dict[str, Any]]:
    """Return what the target of the worker recorded."""
    path = serving.directory / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_worker_has_identity(serving: Serving, backend: str) -> None:
    first = records(serving, f"polite-{backend}.1")[0]

    assert first["name"] == f"polite-{backend}.1"
    assert first["service"] == f"polite-{backend}"
    assert (first["index"], first["incarnation"]) == (1, 1)
    assert first["state"] == {"role": "tester", "sizes": [1, 2], "seen": 1}
    assert first["is_set"] is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_status_and_state_are_shown(serving: Serving, backend: str) -> None:
    """The status is one line; the state is shown beside the agent's own fields."""
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
def test_target_runs_on_declared_backend(serving: Serving, backend: str) -> None:
    assert serving.worker(f"loop-{backend}.0")["status"] == backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_stop_target_using_stopping_returns_on_its_own(
    serving: Serving, backend: str
) -> None:
    serving.call("stop", names=[f"polite-{backend}.0"])

    last = records(serving, f"polite-{backend}.0")[-1]
    assert last == {"ended": "on its own", "is_set": True}
    exited = serving.wait_event(event="exited", name=f"polite-{backend}.0")
    assert exited["returncode"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_stop_target_not_using_stopping_is_cancelled(
    serving: Serving, backend: str
) -> None:
    """Its finally blocks run. A target that uses stopping has most of a minute."""
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
    """Return how long each target took to stop that uses stopping but continues [s]."""

    def stop(backend: str) -> float:
        began = time.monotonic()
        serving.call("stop", names=[f"overdue-{backend}"])
        return time.monotonic() - began

    with ThreadPoolExecutor(len(BACKENDS)) as pool:  # each takes several seconds
        return dict(zip(BACKENDS, pool.map(stop, BACKENDS), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_stop_overdue_target_is_cancelled_before_timeout(
    serving: Serving, overdue: dict[str, float], backend: str
) -> None:
    """A target that used stopping is cancelled after four fifths of `stop_timeout`.

    After the whole timeout the process would be killed.
    """
    assert overdue[backend] >= 0.8 * OVERDUE_TIMEOUT
    assert records(serving, f"overdue-{backend}.0") == [
        {"ended": "in its finally block", "is_set": True}
    ]
    exited = serving.wait_event(event="exited", name=f"overdue-{backend}.0")
    assert exited["returncode"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_restarted_worker_has_next_incarnation(serving: Serving, backend: str) -> None:
    serving.call("restart", names=[f"polite-{backend}.1"])

    incarnations = [
        record["incarnation"]
        for record in records(serving, f"polite-{backend}.1")
        if "incarnation" in record
    ]
    assert incarnations == [1, 2]
    worker = serving.worker(f"polite-{backend}.1")
    assert (worker["incarnation"], worker["restarts"]) == (2, 1)
