"""Who is an operator, and what a worker may ask."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.supervisor.test_server import House, expect, open_house, record, register
from trio_supervisor.application import Command
from trio_supervisor.errors import NotPermittedError, SpecError
from trio_supervisor.link.credentials import Credentials
from trio_supervisor.link.peer import Answer, IncomingCall, Peer, open_peer
from trio_supervisor.policy.roles import GRANTS, missing_grant
from trio_supervisor.process.cleanup.ancestry import Ancestry
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.roles import Denials, Gatekeeper
from trio_supervisor.wire.protocol import OPERATIONS
from trio_supervisor.wire.session import Session

CONTROLLER, WEB, JOB, SHELL = 40, 100, 200, 900


def gatekeeper(*, owns_process: bool = True) -> Gatekeeper:
    """One that knows a worker that may restart others, and one that may not."""
    registry = Registry()
    web = evolve(record("web.0", WEB), may=("restart",))
    registry.update((web, record("job.0", JOB)), 0)
    return Gatekeeper(
        registry=registry,
        controller_pid=CONTROLLER,
        owns_process=owns_process,
        denials=Denials(lambda denied: None),
    )


def origin(*ancestors: int, groups: tuple[int, ...] = (), marked: bool = False) -> Any:
    """The origin of a process, itself first."""
    return Ancestry(
        process_id=ancestors[0],
        ancestors=ancestors,
        groups=frozenset(groups),
        is_marked=marked,
    )


@pytest.mark.parametrize(
    ("whence", "name"),
    [
        pytest.param(None, None, id="unknown to this system"),
        pytest.param(origin(SHELL, 2, 1), None, id="a shell"),
        pytest.param(origin(CONTROLLER), None, id="the controller's own process"),
        pytest.param(origin(WEB, CONTROLLER), "web.0", id="a worker"),
        pytest.param(origin(7, 6, WEB, CONTROLLER), "web.0", id="what it started"),
        pytest.param(origin(7, JOB, WEB), "job.0", id="the nearest counts"),
        pytest.param(origin(7, CONTROLLER), "pid-7", id="an orphan of one"),
        pytest.param(origin(7, 1, groups=(WEB,)), "pid-7", id="of its group"),
        pytest.param(origin(7, 1, marked=True), "pid-7", id="with the marker"),
        pytest.param(Ancestry(process_id=7), "pid-7", id="gone before it was seen"),
    ],
)
def test_role_depends_on_process_ancestry(whence: Ancestry | None, name: str) -> None:
    """The kernel's parent processes decide."""
    role = gatekeeper().role_of(whence, None)
    assert (role.name if role else None) == name


def test_process_group_grants_nothing() -> None:
    """A process can choose its group, but not its parent."""
    role = gatekeeper().role_of(origin(7, 1, groups=(WEB,)), None)
    assert role is not None
    assert role.may == ()


def test_children_of_embedding_program_are_operators() -> None:
    """They are not workers."""
    assert gatekeeper(owns_process=False).role_of(origin(7, CONTROLLER), None) is None


def test_registered_process_is_worker() -> None:
    """For any parent process."""
    role = gatekeeper().role_of(origin(SHELL, 1), SHELL)
    assert role is not None
    assert (role.name, role.may) == (f"pid-{SHELL}", ())


@pytest.mark.parametrize("do", sorted(OPERATIONS))
def test_operator_operations_need_grant(do: str) -> None:
    """Those that the listening socket answers."""
    others = {"ping", "register", "cancel"}
    granted = {each for allowed in GRANTS.values() for each in allowed}
    assert (missing_grant(do, ()) is not None) == (do in granted)
    assert missing_grant(do, tuple(GRANTS)) is None
    assert others.isdisjoint(granted)


def test_restart_with_signal_needs_reload_grant() -> None:
    """Ruby's clients request a reload in this form."""
    assert missing_grant("restart", ("restart",), is_reload=True) == "reload"


async def test_worker_that_may_restart_cannot_reload_by_signal() -> None:
    keeper = gatekeeper()
    role = keeper.role_of(origin(WEB, CONTROLLER), None)
    assert role is not None
    stream, _ = memory_stream_pair()
    async with open_peer(stream, Session(is_connecting=False)) as peer:
        keeper.check(IncomingCall("restart", {"names": ["web"]}, peer, 2), role)
        reload = IncomingCall("restart", {"signal": "HUP"}, peer, 4)
        with pytest.raises(NotPermittedError, match=r'needs may=\("reload",\)'):
            keeper.check(reload, role)


def test_denials_are_reported_at_each_doubling() -> None:
    told: list[int] = []
    denials = Denials(lambda denied: told.append(denied.count))
    for _ in range(100):
        denials.note("web.0", 7, "stop", "stop")
    assert told == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("may", ["status", ["everything"], [1], ["ping"]])
def test_unknown_grant_is_refused_at_declaration(may: Any) -> None:
    with pytest.raises(SpecError, match=r"^may"):
        Command("web", ["true"], may=may)


# Over connections.


async def connect(
    house: House, nursery: trio.Nursery, process_id: int, whence: Ancestry | None
) -> Peer:
    """Connect as a process that comes from there."""
    ours, theirs = memory_stream_pair()
    credentials = Credentials(process_id=process_id, user_id=0, group_id=0)
    nursery.start_soon(house.server.serve_connection, theirs, credentials, whence)
    opened: list[Peer] = []

    async def hold() -> None:
        async with open_peer(ours, Session(is_connecting=True)) as peer:
            opened.append(peer)
            await trio.sleep_forever()

    nursery.start_soon(hold)
    await wait_all_tasks_blocked()
    return opened[0]


@pytest.mark.parametrize(
    ("pids", "is_admitted"),
    [((7, 100, CONTROLLER), True), ((7, 1), False), ((), False)],
    ids=["child of a worker", "unrelated process", "process that has exited"],
)
async def test_worker_of_another_user_is_admitted(
    pids: tuple[int, ...], is_admitted: bool
) -> None:
    async with (
        open_house() as house,
        house.control(lambda _: {}),
        trio.open_nursery() as nursery,
    ):
        ours, theirs = memory_stream_pair()
        credentials = Credentials(process_id=7, user_id=65534, group_id=65534)
        whence = Ancestry(process_id=7, ancestors=pids)
        nursery.start_soon(house.server.serve_connection, theirs, credentials, whence)
        await ours.send_all(b'{"id": 2, "do": "ping"}\n')
        answer = json.loads(await ours.receive_some())
        assert answer.get("failed", False) is not is_admitted
        await ours.aclose()


async def test_worker_without_grant_sees_only_itself() -> None:
    """Each denial is reported to the controller, with the option's name."""
    asked: list[tuple[str, Any]] = []

    def control(call: IncomingCall) -> Answer:
        asked.append((call.do, call.arguments))
        return {}

    async with (
        open_house() as house,
        house.control(control),
        house.connect(100) as agent,
        trio.open_nursery() as nursery,
    ):
        await register(agent, 100, name="web.0")
        worker = await connect(house, nursery, 7, origin(7, 100, CONTROLLER))
        await worker.call("ping", {})
        with expect("NoSuchWorker"):
            await worker.call(
                "forward",
                {"connection_id": "", "operation": {"do": "ping"}, "timeout": 1},
            )
        for do in ("status", "workers"):
            report = await worker.call(do, {})
            assert [row["name"] for row in report["workers"]] == ["web.0"]
            assert [row["process_id"] for row in report["connections"]] == [100]
        denied: dict[str, dict[str, Any]] = {
            "stop": {"names": ["web.1"]},
            "reload": {},
            "restart": {"signal": "HUP"},
            "forward": {"name": "web.1", "operation": {"do": "memory_dump"}},
            "workers": {"wait_ready": True},
            "logs": {},
            "shutdown": {},
        }
        for do, arguments in denied.items():
            with expect("NotPermitted", "its service 'web' needs may=("):
                await worker.call(do, arguments)
        whence = origin(300, CONTROLLER, marked=True)
        early = await connect(house, nursery, 300, whence)
        reports: list[Any] = []

        async def look() -> None:
            reports.append(await early.call("status", {}))

        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        house.server.registry.update((record("job.0", 300),), 0)
        await wait_all_tasks_blocked()
        assert [row["name"] for row in reports[0]["workers"]] == ["job.0"]
        with expect("NotPermitted", 'needs may=("stop",)'):
            await agent.call("stop", {"names": ["web.1"]})
        assert {do for do, _ in asked} == {"denied"}
        assert asked[0][1] == {
            "name": "web.0",
            "process_id": 7,
            "operation": "stop",
            "needed": "stop",
            "count": 1,
        }

        granted = evolve(record("web.0", 100), may=("stop",))
        house.server.registry.update((granted,), 0)
        await worker.call("stop", {"names": ["web.1"]})
        assert asked[-1][0] == "stop"
        nursery.cancel_scope.cancel()
