"""Workers that hang: in startup, in the event loop, in a blocking call."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

HANGING = """
import time
import trio
from trio_supervisor import Application, Service, SyncWorker, Worker

async def sleeps(worker: Worker) -> None:
    await worker.ready()
    if worker.incarnation == 1:
        time.sleep(1000)  # the main loop is stuck here
    await trio.sleep_forever()

async def spins(worker: Worker) -> None:
    await worker.ready()
    is_stuck = worker.incarnation == 1
    while is_stuck:
        pass
    await worker.stopping.wait()

async def well(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

async def never_ready(worker: Worker) -> None:
    if worker.incarnation > 1:
        await worker.ready()
    await trio.sleep_forever()

def looks_no_more(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.is_set()
    if worker.incarnation == 1:
        time.sleep(1000)
    worker.stopping.wait()

def blocks(worker: SyncWorker) -> None:
    worker.ready()
    time.sleep(1000)  # a long blocking call

application = Application(
    services=[
        Service("sleeps", sleeps, health_check_timeout=6, stop_timeout=0.5),
        Service("spins", spins, backend="asyncio", health_check_timeout=6,
                stop_timeout=0.5),
        Service("well", well, health_check_timeout=5),
        Service("well-too", well, backend="asyncio", health_check_timeout=5),
        Service("never-ready", never_ready, startup_timeout=5),
        Service("looks-no-more", looks_no_more, backend="sync", health_check_timeout=6,
                stop_timeout=0.5),
        Service("blocks", blocks, backend="sync", health_check_timeout=1),
    ],
)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """The services above; some of them have hung already."""
    with open_serving(HANGING, is_ready=False) as serving:
        yield serving


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("sleeps.0", {"time.sleep(1000)  # the main loop is stuck here"}),
        ("spins.0", {"while is_stuck:", "pass"}),
    ],
)
def test_thread_dump_shows_the_line_that_blocks_the_loop(
    serving: Serving, name: str, lines: set[str]
) -> None:
    """The agent answers while the loop is blocked, before the worker is replaced."""
    serving.wait_event(event="ready", name=name)
    serving.wait_event(event="supervisor_connected")
    while not serving.worker(name)["connected"]:
        assert not serving.select(event="stopping", name=name)

    answer = serving.call("forward", name=name, operation={"do": "thread_dump"})

    assert serving.worker(name)["incarnation"] == 1
    main = answer["threads"][0]
    assert main["is_main"]
    innermost = main["frames"][-1]
    assert innermost["file"] == str(serving.directory / "service.py")
    assert innermost["function"] == name.removesuffix(".0")
    assert innermost["source"] in lines
    source = serving.directory / "service.py"
    shown = source.read_text().splitlines()[innermost["line"] - 1].strip()
    assert shown == innermost["source"]
    assert innermost["source"] in answer["data"]


@pytest.mark.parametrize("name", ["sleeps.0", "spins.0", "looks-no-more.0"])
def test_worker_with_blocked_loop_is_replaced(serving: Serving, name: str) -> None:
    stopping = serving.wait_event(event="stopping", name=name)
    ready = serving.wait_events(2, event="ready", name=name)

    assert stopping["cause"] == "unhealthy"
    assert stopping["problem"] == "no heartbeat for 6 s"
    assert stopping["setting"] == "health_check_timeout"
    # On a loaded machine up to five times the timeout of 6 s.
    assert 5.9 < stopping["at"] - ready[0]["at"] < 45
    exited = serving.wait_event(event="exited", name=name)
    assert exited["is_planned"] is False
    # A busy loop cannot be stopped in Python, only killed.
    assert exited["returncode"] in (0, -signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "cause", "lines"),
    [
        ("sleeps.0", "unhealthy", {"time.sleep(1000)  # the main loop is stuck here"}),
        ("spins.0", "unhealthy", {"while is_stuck:", "pass"}),
        ("looks-no-more.0", "unhealthy", {"time.sleep(1000)"}),
    ],
)
def test_stack_dump_is_logged_before_stopping(
    serving: Serving, name: str, cause: str, lines: set[str]
) -> None:
    serving.wait_event(event="stopping", name=name)

    told = [
        event
        for event in serving.select(name=name)
        if event.get("event") in ("evidence", "stopping")
    ]

    assert [event["event"] for event in told[:2]] == ["evidence", "stopping"]
    assert told[0]["process_id"] == told[1]["process_id"]
    assert told[0]["cause"] == cause
    assert any(line in told[0]["stacks"] for line in lines)
    assert told[0]["stacks"] in told[0]["message"]


def test_stack_dump_includes_waiting_tasks(serving: Serving) -> None:
    """The stacks of threads only show that the event loop is idle."""
    stacks = serving.wait_event(event="evidence", name="never-ready.0")["stacks"]
    threads, tasks = stacks.split("\n\nTasks:\n")

    assert "service.py" not in threads
    line = "service.py:26 in never_ready  ⟶ sleep_forever"
    assert line in tasks


def test_stack_dump_of_sync_worker_has_no_tasks(serving: Serving) -> None:
    evidence = serving.wait_event(event="evidence", name="looks-no-more.0")

    assert "Tasks:" not in evidence["stacks"]


def test_worker_not_ready_in_time_is_replaced(serving: Serving) -> None:
    stopping = serving.wait_event(event="stopping", name="never-ready.0")
    started = serving.wait_event(event="started", name="never-ready.0")
    serving.wait_event(event="ready", name="never-ready.0")

    assert stopping["cause"] == "startup_timeout"
    pid = stopping["process_id"]
    words = f"not ready after 5 s (startup_timeout, pid {pid}); stopping"
    assert stopping["message"] == words
    assert 4.9 < stopping["at"] - started["at"] < 45
    assert serving.worker("never-ready.0")["incarnation"] == 2


def test_responsive_worker_is_not_restarted(serving: Serving) -> None:
    """Without heartbeats it would have been replaced after 5 s."""
    for name in ("well.0", "well-too.0"):
        while serving.worker(name)["uptime"] <= 6:
            assert serving.process.poll() is None
        assert serving.worker(name)["incarnation"] == 1


def test_sync_worker_in_a_blocking_call_is_not_restarted(serving: Serving) -> None:
    """It never checked `stopping`, so no heartbeat is due; a thread dump works."""
    answer = serving.cli("thread-dump", "blocks.0", "--json")

    worker = serving.worker("blocks.0")
    assert worker["uptime"] > 3
    assert worker["incarnation"] == 1
    main = json.loads(answer.stdout)["threads"][0]
    assert main["frames"][-1]["source"] == "time.sleep(1000)  # a long blocking call"
    assert main["frames"][-1]["function"] == "blocks"


def test_replaced_workers_become_ready(serving: Serving) -> None:
    report = serving.when_ready()

    assert {worker["name"]: worker["restarts"] for worker in report["workers"]} == {
        "sleeps.0": 1,
        "spins.0": 1,
        "well.0": 0,
        "well-too.0": 0,
        "never-ready.0": 1,
        "looks-no-more.0": 1,
        "blocks.0": 0,
    }
