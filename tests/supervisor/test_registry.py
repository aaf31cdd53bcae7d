"""The picture made of what the controller says and of who is connected."""

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
from trio_supervisor.testing import simulated
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


@simulated
async def test_a_worker_is_connected_by_name_and_process_id() -> None:
    registry = Registry()
    registry.update([record("web.0", 100), record("web.1", 101)], restarts=0)

    registry.add(connection(101, name="web.1"))

    assert names(registry) == [("web.0", False, True), ("web.1", True, True)]


def test_its_age_is_counted_from_what_the_controller_says() -> None:
    registry = Registry()
    registry.update([record("web.0"), record("web.1", None, started_at=None)], 0)

    first, second = StatusRows(registry).statuses(now=25.5)

    assert (first["uptime"], first["ready_for"]) == (15.5, 13.5)
    assert second["uptime"] is None


@simulated
async def test_a_stranger_cannot_take_the_name_of_a_worker() -> None:
    """Not even of one that is not connected, or not running."""
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


@simulated
async def test_a_stranger_keeps_a_name_that_is_free() -> None:
    registry = Registry()
    registry.add(connection(1, name="Falcon"))
    registry.add(connection(2, name=7))
    registry.add(connection(3, name=""))

    assert [name for name, *_ in names(registry)] == ["Falcon", "pid-2", "pid-3"]


@simulated
async def test_the_former_process_of_a_worker_is_a_stranger() -> None:
    """It may linger for as long as it stops."""
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


@simulated
async def test_the_newest_connection_of_a_worker_counts() -> None:
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


@simulated
async def test_what_a_worker_says_of_itself_later_replaces_what_it_said() -> None:
    registry = Registry()
    worker = connection(100, name="Falcon")
    registry.add(worker)
    assert worker.to_connection()["state"]["name"] == "Falcon"

    registry.remove(worker)
    worker.renew({"process_id": 100, "name": "Puma"})
    registry.add(worker)

    assert [name for name, *_ in names(registry)] == ["Puma"]
    assert worker.to_connection()["state"]["name"] == "Puma"


@simulated
async def test_what_is_said_of_a_worker_keeps_up_with_the_controller() -> None:
    """Rows are kept from call to call; none may be stale."""
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


@simulated
async def test_a_connection_is_found_by_its_id_alone() -> None:
    registry = Registry()
    find = WorkerNames(registry).find
    worker = connection(100, name="web.0")
    registry.add(worker)

    assert find(worker.connection_id, None) is worker
    with pytest.raises(NoSuchWorkerError, match="no connection has the id 'nope'"):
        find("nope", None)


def test_a_name_that_means_nothing_is_answered_with_those_that_do() -> None:
    registry = Registry()
    find = WorkerNames(registry).find
    registry.update([record("web.0"), record("jobs.0")], 0)

    with pytest.raises(
        NoSuchWorkerError,
        match=r"^no worker has the name 'web'; there are: jobs\.0, web\.0$",
    ):
        find(None, "web")


@simulated
async def test_what_ruby_clients_get_has_the_id_inside_as_well() -> None:
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


@simulated
async def test_ready_means_all_are_ready_and_connected() -> None:
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


@simulated
async def test_an_application_without_workers_is_ready() -> None:
    registry = Registry()
    registry.update([], 0)
    assert await is_ready(registry)


@simulated
async def test_one_that_failed_for_good_ends_the_wait() -> None:
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


@simulated
async def test_a_wait_ends_when_the_last_one_connects() -> None:
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


@simulated
async def test_both_generations_are_shown_while_one_takes_over() -> None:
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


@simulated
async def test_the_name_means_the_newest_that_is_ready() -> None:
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


def test_news_of_either_leaves_the_other_alone() -> None:
    registry = Registry()
    registry.update([record("web.0", 100), record("web.0", 200, generation=2)], 0)
    registry.update([record("web.0", 100, state="stopping")], 0)
    assert generations(registry) == [("web.0", 1, "stopping"), ("web.0", 2, "ready")]


@pytest.mark.parametrize("gone", [1, 2])
def test_one_that_is_gone_leaves_the_name_to_the_other(gone: int) -> None:
    """Whether the reload succeeded, or failed."""
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


def test_one_that_comes_in_the_place_of_one_that_is_gone_is_kept() -> None:
    """Told in one breath: the same name, and the same generation."""
    registry = Registry()
    registry.update([record("web.0", 100)], 0)
    registry.update([record("web.0", 300)], 0, [Gone(name="web.0", generation=1)])
    assert generations(registry) == [("web.0", 1, "ready")]
    assert registry.records["web.0"].process_id == 300


@simulated
async def test_the_ones_that_come_and_go_are_not_waited_for() -> None:
    """Whoever waits for all to be ready means those that do the work."""
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
