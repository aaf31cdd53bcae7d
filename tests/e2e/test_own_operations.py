"""Test operations that a service adds; none can end its worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import asyncio, sys
from functools import partial
import trio
from trio_supervisor import Application, Service, SyncWorker, Worker

def interrupts() -> None:
    raise KeyboardInterrupt

def quits() -> None:
    sys.exit(3)

async def quits_below() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep(0)
        quits()

def has_no_number() -> dict[str, float]:
    return {"mean": float("nan")}

def echo(content: bytes) -> bytes:
    return content

def greet(greeting: str, name: str) -> str:
    return f"{greeting}, {name}"

def add_all(worker) -> None:
    worker.handle("greet", partial(greet, "Hello"))
    for function in (interrupts, quits, quits_below, has_no_number, echo):
        worker.handle(function.__name__, function)

class Sum:
    async def __call__(self, one: int, other: int) -> int:
        return one + other

async def work(worker: Worker) -> None:
    add_all(worker)
    worker.handle("add", Sum())
    await worker.ready()
    await worker.stopping.wait()

def plain(worker: SyncWorker) -> None:
    add_all(worker)
    worker.ready()
    worker.stopping.wait()

application = Application(
    services=[
        Service("on_trio", work),
        Service("on_asyncio", work, backend="asyncio"),
        Service("plain", plain, backend="sync"),
    ],
)
"""
SERVICES = ("on_trio", "on_asyncio", "plain")


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, is_ready=False) as found:
        found.wait_event(event="all_ready")
        for name in SERVICES:
            found.wait_worker(f"{name}.0", connected=True)
        yield found


def failure(serving: Serving, *words: str) -> str:
    """Call an operation that fails; return its error. The worker must survive."""
    before = serving.worker(f"{words[0]}.0")["process_id"]
    done = serving.cli("call", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert serving.cli("call", words[0], "ping").returncode == 0
    assert serving.worker(f"{words[0]}.0")["process_id"] == before
    return done.stderr


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("operation", "exception"),
    [("interrupts", "KeyboardInterrupt"), ("quits", "SystemExit")],
)
def test_operation_that_exits_fails(
    serving: Serving, service: str, operation: str, exception: str
) -> None:
    said = failure(serving, service, operation)
    assert f"'{operation}' failed ({exception}); see the worker's log" in said


def test_operation_that_exits_in_nursery_fails(serving: Serving) -> None:
    assert "'quits_below' failed (SystemExit)" in failure(
        serving, "on_trio", "quits_below"
    )


def test_operation_with_result_not_in_json_fails(serving: Serving) -> None:
    said = failure(serving, "on_trio", "has_no_number")
    assert "OperationFailed: 'has_no_number' returned a value that JSON" in said
    assert "its result.mean is nan" in said


def test_operation_takes_and_returns_bytes(serving: Serving) -> None:
    done = serving.cli("call", "on_trio", "echo", "content=aGk=")
    assert '"data": "aGk="' in done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_partial_function_as_operation(serving: Serving, service: str) -> None:
    done = serving.cli("call", service, "greet", "name=you")
    assert '"data": "Hello, you"' in done.stdout


@pytest.mark.parametrize("service", ["on_trio", "on_asyncio"])
def test_async_callable_object_as_operation(serving: Serving, service: str) -> None:
    done = serving.cli("call", service, "add", "one=1", "other=2")
    assert '"data": 3' in done.stdout
