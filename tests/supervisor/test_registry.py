"""The registry: the controller's records combined with connections."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_supervisor.errors import (
    NoSuchWorkerError,
    NotConnectedError,
    UnavailableError,
)
from trio_supervisor.link.peer import Peer, refuse_calls
from trio_supervisor.link.transport import transport_of
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.status_rows import StatusRows
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.supervisor.worker_names import WorkerNames
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.session import Session
from trio_supervisor.wire.workers import Gone, WorkerRecord


def record(name: str, process_id: int | None = 100, **fields: Any) -> WorkerRecord:
    """What the controller says of a worker that is ready."""
    settings: dict[str, Any] = {
        "state": "ready",
        "incarnation": 1,
        "restarts": 0,
        "started_at": 10.0,
        "ready_at": 12.0,
        **fields,
    }
    service = name.partition(".")[0]
    return WorkerRecord(name=name, service=service, process_id=process_id, **settings)


def connection(process_id: int, **state: Any) -> WorkerConnection:
    """A connection that registered."""
    stream, _ = memory_stream_pair()
    peer = Peer(transport_of(stream), Session(is_connecting=False), refuse_calls)
    return WorkerConnection(peer, process_id, {"process_id": process_id, **state})


def names(registry: Registry) -> list[tuple[str, bool, bool]]:
    """Of each worker: its name, and whether it is connected, and the controller's."""
    statuses = StatusRows(registry).statuses(now=20.0)
    return [(s["name"], s["connected"], s["is_managed"]) for s in statuses]


@in_virtual_time
async def test_worker_matches_by_name_and_pid() -> None:
    registry = Registry()
    registry.update([record("web.0", 100), record("web.1", 101)], restarts=0)

    registry.add(connection(101, name="web.1"))

    assert names(registry) == [("web.0", False, True), ("web.1", True, True)]


def test_age_counts_from_controller_record() -> None:
    registry = Registry()
    registry.update([record("web.0"), record("web.1", None, started_at=None)], 0)

    first, second = StatusRows(registry).statuses(now=25.5)

    assert (first["uptime"], first["ready_for"]) == (15.5, 13.5)
    assert second["uptime"] is None


@in_virtual_time
async def test_stranger_cannot_take_worker_name() -> None:
    """Even if the worker is not connected or not running."""
    registry = Registry()
    find = WorkerNames(registry).find
    registry.update([record("web.0", 100), record("web.1", None)], 0)
    registry.add(connection(666, name="web.0"))
    registry.add(connection(667, name="web.1"))

    assert names(registry) == [
        ("web.0", False, True),
        ("web.1", False, True),
        ("pid-666", True, False),
        ("pid-667", True, False),
    ]
    with pytest.raises(
        NotConnectedError, match=r"^web\.0 is not connected \(state: re"
    ):
        find(None, "web.0")
    assert find(None, "pid-666").process_id == 666


@in_virtual_time
async def test_stranger_keeps_free_name() -> None:
    registry = Registry()
    registry.add(connection(1, name="Falcon"))
    registry.add(connection(2, name=7))
    registry.add(connection(3, name=""))

    assert [name for name, *_ in names(registry)] == ["Falcon", "pid-2", "pid-3"]


@in_virtual_time
async def test_former_process_is_stranger() -> None:
    """It may stay connected while it stops."""
    registry = Registry()
    find = WorkerNames(registry).find
    registry.update([record("web.0", 100)], 0)
    old = connection(100, name="web.0")
    registry.add(old)

    registry.update([record("web.0", 200, incarnation=2)], 0)
    registry.add(connection(200, name="web.0"))

    assert find(None, "web.0").process_id == 200
    assert registry.record_of(old) is None
    assert names(registry) == [("web.0", True, True), ("pid-100", True, False)]


@in_virtual_time
async def test_newest_connection_counts() -> None:
    registry = Registry()
    find = WorkerNames(registry).find
    registry.update([record("web.0", 100)], 0)
    first, second = connection(100, name="web.0"), connection(100, name="web.0")
    registry.add(first)
    registry.add(second)
    assert find(None, "web.0") is second

    registry.remove(second)
    registry.remove(second)

    assert find(None, "web.0") is first


@in_virtual_time
async def test_later_state_replaces_earlier() -> None:
    registry = Registry()
    worker = connection(100, name="Falcon")
    registry.add(worker)
    assert worker.to_connection()["state"]["name"] == "Falcon"

    registry.remove(worker)
    worker.renew({"process_id": 100, "name": "Puma"})
    registry.add(worker)

    assert [name for name, *_ in names(registry)] == ["Puma"]
    assert worker.to_connection()["state"]["name"] == "Puma"


@in_virtual_time
async def test_rows_follow_controller_updates() -> None:
    """Rows are cached between calls; none may be stale."""
    registry = Registry()
    statuses = StatusRows(registry).statuses
    registry.update([record("web.0", 100)], 0)
    worker = connection(100, name="web.0")
    registry.add(worker)
    assert statuses(20.0)[0]["connection_id"] == worker.connection_id
    assert statuses(30.0)[0]["uptime"] == 20.0

    registry.update([record("web.0", 100, status="busy", restarts=3)], 0)
    (row,) = statuses(20.0)
    assert (row["status"], row["restarts"], row["connected"]) == ("busy", 3, True)

    registry.remove(worker)
    (row,) = statuses(20.0)
    assert (row["connected"], row["connection_id"]) == (False, None)


@in_virtual_time
async def test_find_by_connection_id() -> None:
    registry = Registry()
    find = WorkerNames(registry).find
    worker = connection(100, name="web.0")
    registry.add(worker)

    assert find(worker.connection_id, None) is worker
    with pytest.raises(NoSuchWorkerError, match="no connection has the id 'nope'"):
        find("nope", None)


def test_unknown_name_error_lists_known_names() -> None:
    registry = Registry()
    find = WorkerNames(registry).find
    registry.update([record("web.0"), record("jobs.0")], 0)

    with pytest.raises(
        NoSuchWorkerError,
        match=r"^no worker has the name 'web'; there are: jobs\.0, web\.0$",
    ):
        find(None, "web")


@in_virtual_time
async def test_ruby_status_contains_id() -> None:
    worker = connection(100, name="web.0", role="x")

    shown = worker.to_connection()

    assert shown["process_id"] == 100
    assert shown["state"] == {
        "process_id": 100,
        "name": "web.0",
        "role": "x",
        "connection_id": shown["connection_id"],
    }


async def is_ready(registry: Registry) -> bool:
    """Whether a wait would end at once."""
    with trio.move_on_after(1) as scope:
        await registry.wait_ready()
    return not scope.cancelled_caught


@in_virtual_time
async def test_ready_when_all_ready_and_connected() -> None:
    registry = Registry()
    assert not await is_ready(registry)  # nobody said anything yet

    registry.update([record("web.0", 100), record("nap.0", 7, connects=False)], 0)
    assert not await is_ready(registry)
    registry.add(connection(666, name="web.0"))
    assert not await is_ready(registry)
    worker = connection(100, name="web.0")
    registry.add(worker)
    assert await is_ready(registry)

    registry.update([record("web.0", 101, state="starting")], 0)
    assert not await is_ready(registry)
    registry.update([record("web.0", None, state="stopped")], 0)
    assert await is_ready(registry)  # nobody waits for one that was stopped


@in_virtual_time
async def test_ready_without_workers() -> None:
    registry = Registry()
    registry.update([], 0)
    assert await is_ready(registry)


@in_virtual_time
async def test_permanent_failure_ends_ready_wait() -> None:
    registry = Registry()
    registry.update([record("web.0", state="starting")], 0)
    async with trio.open_nursery() as nursery:

        async def expect_failure() -> None:
            with pytest.raises(UnavailableError, match=r"^web\.0 failed: exit code 3$"):
                await registry.wait_ready()

        nursery.start_soon(expect_failure)
        await trio.testing.wait_all_tasks_blocked()
        failed = record("web.0", None, state="failed", last_exit="exit code 3")
        registry.update([failed], 0)


@in_virtual_time
async def test_ready_wait_ends_with_last_connection() -> None:
    registry = Registry()
    registry.update([record("web.0", 100)], 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.wait_ready)
        await trio.sleep(5)
        registry.add(connection(100, name="web.0"))
    assert trio.current_time() == 5


# Two generations of one name.


def generations(registry: Registry) -> list[tuple[str, int, str]]:
    """Of each worker: its name, its generation, its state."""
    statuses = StatusRows(registry).statuses(now=20.0)
    return [(s["name"], s["generation"], s["state"]) for s in statuses]


@in_virtual_time
async def test_both_generations_are_listed_during_reload() -> None:
    """Each with the connection of its own process."""
    registry = Registry()
    registry.update([record("web.0", 100), record("web.1", 101)], 0)
    registry.add(connection(100, name="web.0"))
    registry.update([record("web.0", 200, generation=2, state="starting")], 0)
    registry.add(connection(200, name="web.0"))
    assert generations(registry) == [
        ("web.0", 1, "ready"),
        ("web.1", 1, "ready"),
        ("web.0", 2, "starting"),
    ]
    assert names(registry) == [
        ("web.0", True, True),
        ("web.1", False, True),
        ("web.0", True, True),
    ]


@in_virtual_time
async def test_name_means_newest_ready_generation() -> None:
    registry = Registry()
    find = WorkerNames(registry).find
    old, new = connection(100, name="web.0"), connection(200, name="web.0")
    registry.update([record("web.0", 100)], 0)
    registry.add(old)
    registry.add(new)
    registry.update([record("web.0", 200, generation=2, state="starting")], 0)
    assert find(None, "web.0") is old
    registry.update([record("web.0", 200, generation=2)], 0)
    assert find(None, "web.0") is new
    registry.update([record("web.0", 100, state="stopping")], 0)
    assert find(None, "web.0") is new


def test_generation_update_keeps_the_other() -> None:
    registry = Registry()
    registry.update([record("web.0", 100), record("web.0", 200, generation=2)], 0)
    registry.update([record("web.0", 100, state="stopping")], 0)
    assert generations(registry) == [("web.0", 1, "stopping"), ("web.0", 2, "ready")]


@pytest.mark.parametrize("gone", [1, 2])
def test_removed_generation_leaves_name_to_other(gone: int) -> None:
    """After a successful or failed reload."""
    registry = Registry()
    find = WorkerNames(registry).find
    registry.update([record("web.0", 100), record("web.0", 200, generation=2)], 0)
    registry.update([], 0, [Gone(name="web.0", generation=gone)])
    [(_, left, _)] = generations(registry)
    assert left == 3 - gone
    assert registry.records["web.0"].generation == left
    registry.update([], 0, [Gone(name="web.0", generation=left)])
    assert generations(registry) == []
    assert registry.records == {}
    with pytest.raises(NoSuchWorkerError):
        find(None, "web.0")


def test_replacement_of_removed_worker_is_kept() -> None:
    """In one update: the same name and generation."""
    registry = Registry()
    registry.update([record("web.0", 100)], 0)
    registry.update([record("web.0", 300)], 0, [Gone(name="web.0", generation=1)])
    assert generations(registry) == [("web.0", 1, "ready")]
    assert registry.records["web.0"].process_id == 300


@in_virtual_time
async def test_ready_ignores_temporary_workers() -> None:
    """wait_ready() waits for permanent workers only."""
    registry = Registry()
    registry.update([record("web.0", 100)], 0)
    registry.add(connection(100, name="web.0"))
    coming = record("web.0", 200, generation=2, state="starting", counts=False)
    registry.update([coming], 0)
    assert await is_ready(registry)
    failed = record("new.0", None, generation=2, state="failed", counts=False)
    registry.update([failed], 0)
    assert await is_ready(registry)
    registry.update([record("web.0", 200, generation=2)], 0)
    registry.add(connection(200, name="web.0"))
    registry.update([record("web.0", 100, state="stopping", counts=False)], 0)
    assert await is_ready(registry)


def test_snapshot_removes_omitted_workers() -> None:
    registry = Registry()
    registry.update([record("web.0", 100), record("web.1", 101)], restarts=0)

    registry.replace([record("web.1", 101)], restarts=0)

    assert [name for name, *_ in names(registry)] == ["web.1"]
    assert [name for name, _ in registry.all_records] == ["web.1"]
