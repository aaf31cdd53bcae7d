"""The supervisor's side of its connections: memory streams, virtual time."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_supervisor import Monitor
from trio_supervisor.errors import (
    CallFailedError,
    NoSuchWorkerError,
)
from trio_supervisor.link.credentials import Credentials
from trio_supervisor.link.peer import (
    Answer,
    Dispatch,
    IncomingCall,
    Peer,
    open_peer,
    refuse_calls,
)
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.monitors.base import MonitoredWorker
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.server import Server
from trio_supervisor.testing import (
    FakeMonitoredWorker,
    in_virtual_time,
    sleep_through,
)
from trio_supervisor.wire.codec import unparse_operation
from trio_supervisor.wire.limits import DEFAULT_LIMITS, Limits
from trio_supervisor.wire.messages import Update
from trio_supervisor.wire.session import Session
from trio_supervisor.wire.workers import WorkerRecord

ROOT = 0
NOBODY = 65534


class Watching(Monitor):
    """A monitor that records its workers."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[MonitoredWorker] = []

    def register(self, worker: MonitoredWorker) -> None:
        self.workers.append(worker)

    def remove(self, worker: MonitoredWorker) -> None:
        self.workers.remove(worker)

    def status(self) -> dict[str, object]:
        return {"names": [worker.name for worker in self.workers]}


class House:
    """A server and its connections."""

    def __init__(self, nursery: trio.Nursery, limits: Limits) -> None:
        self.monitor = Watching()
        self.server = Server(
            registry=Registry(),
            monitoring=Monitoring([self.monitor]),
            process_id=50,
            incarnation=3,
            controller_pid=40,
            version="1.2.3",
            limits=limits,
        )
        self._nursery = nursery
        nursery.start_soon(self.server.watch.run)

    def connect_stream(self, process_id: int, user_id: int = ROOT) -> trio.abc.Stream:
        """Connect as that process, and return our end."""
        ours, theirs = memory_stream_pair()
        credentials = Credentials(
            process_id=process_id, user_id=user_id, group_id=user_id
        )
        self._nursery.start_soon(self.server.serve_connection, theirs, credentials)
        return ours

    @asynccontextmanager
    async def connect(
        self, process_id: int = 7, dispatch: Dispatch = refuse_calls
    ) -> AsyncIterator[Peer]:
        """Connect as that process for the length of the block."""
        session = Session(is_connecting=True)
        stream = self.connect_stream(process_id)
        async with open_peer(stream, session, dispatch) as peer:
            yield peer

    @asynccontextmanager
    async def control(self, dispatch: Dispatch) -> AsyncIterator[Peer]:
        """Be the controller for the length of the block."""
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.server.serve_controller, theirs)
        async with open_peer(ours, Session(is_connecting=True), dispatch) as peer:
            do, arguments = unparse_operation(
                Update(
                    workers=(record("web.0", 100), record("web.1", None)),
                    is_snapshot=True,
                )
            )
            await peer.call(do, arguments)
            yield peer


def record(name: str, process_id: int | None) -> WorkerRecord:
    """What the controller says of a worker."""
    return WorkerRecord(
        name=name,
        service="web",
        state="ready" if process_id else "backoff",
        process_id=process_id,
        incarnation=2,
        restarts=1,
        started_at=0.0,
    )


@asynccontextmanager
async def open_house(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[House]:
    """Have a server for the length of the block."""
    async with trio.open_nursery() as nursery:
        yield House(nursery, limits)
        nursery.cancel_scope.cancel()


async def register(peer: Peer, process_id: int, **state: object) -> str:
    """Register as that process; return the connection's id."""
    fields = {"state": {"process_id": process_id, **state}}
    connection_id = (await peer.call("register", fields))["connection_id"]
    assert isinstance(connection_id, str)
    return connection_id


def expect(name: str, text: str = "") -> pytest.RaisesExc[CallFailedError]:
    """Expect an error of that name on the wire, whose message contains *text*."""
    return pytest.RaisesExc(
        CallFailedError,
        check=lambda exc: exc.error_class == name and text in exc.message,
    )


def echo(call: IncomingCall) -> Answer:
    """A worker that says what it was asked."""
    return {"asked": call.do, "arguments": call.arguments}


@in_virtual_time
async def test_status_monitors_precede_workers() -> None:
    progress: list[Any] = []
    async with (
        open_house() as house,
        house.control(echo),
        house.connect(100) as worker,
        house.connect() as client,
    ):
        id_ = await register(worker, 100, name="web.0", mood="good")
        await trio.sleep(5)

        report = await client.call("status", {}, progress.append)

    assert progress == [{"watching": {"names": ["web.0"]}}]
    assert report["supervisor"] == {"process_id": 50, "incarnation": 3, "uptime": 5.0}
    assert report["controller"] == {
        "process_id": 40,
        "version": "1.2.3",
        "state": "",
        "silent_for": None,
    }
    rows = [(w["name"], w["connected"], w["connection_id"]) for w in report["workers"]]
    assert rows == [("web.0", True, id_), ("web.1", False, None)]
    (connection,) = report["connections"]
    assert connection["connection_id"] == id_
    assert connection["state"]["mood"] == "good"


@in_virtual_time
async def test_worker_is_forgotten_after_disconnect() -> None:
    async with open_house() as house, house.control(echo):
        async with house.connect(100) as worker:
            await register(worker, 100, name="web.0")
            assert [w.name for w in house.monitor.workers] == ["web.0"]
        await wait_all_tasks_blocked()

        assert house.monitor.workers == []
        assert house.server.registry.connections == {}


@in_virtual_time
async def test_unregistered_client_is_no_worker() -> None:
    async with open_house() as house:
        async with house.connect() as client:
            await client.call("ping", {})
        await wait_all_tasks_blocked()
        assert house.monitor.workers == []


@in_virtual_time
async def test_register_as_other_process_is_refused() -> None:
    async with open_house() as house, house.connect(666) as peer:
        with expect("NotPermitted", "process 666 may not register as process 100"):
            await register(peer, 100, name="web.0")
        for process_id in (None, "666", 666.0, True):
            with expect("BadRequest", "state.process_id: expected a process id"):
                await peer.call("register", {"state": {"process_id": process_id}})
        assert house.server.registry.connections == {}


@in_virtual_time
async def test_register_again_updates_worker() -> None:
    async with open_house() as house, house.connect(7) as worker:
        first = await register(worker, 7, name="Falcon")
        second = await register(worker, 7, name="Puma", mood="good")

        assert first == second
        (connection,) = (await worker.call("status", {}))["connections"]
        assert connection["state"]["mood"] == "good"
        assert [w.name for w in house.monitor.workers] == ["Puma"]


@in_virtual_time
async def test_stranger_gets_no_worker_calls() -> None:
    async with (
        open_house() as house,
        house.control(echo),
        house.connect(666, echo) as stranger,
        house.connect(100, echo) as worker,
        house.connect() as client,
    ):
        await register(worker, 100, name="web.0")
        await register(stranger, 666, name="web.0", is_newer=True)
        operation = {"do": "who", "loud": True}

        answer = await client.call("forward", {"name": "web.0", "operation": operation})

        assert answer == {"asked": "who", "arguments": {"loud": True}}
        find = house.server.calls.names.find
        assert find(None, "web.0").process_id == 100
        assert find(None, "pid-666").process_id == 666


@in_virtual_time
async def test_forwarded_call_streams_progress() -> None:
    def count(call: IncomingCall) -> Answer:
        for number in range(3):
            call.progress({"number": number})
        return {"total": 3}

    progress: list[Any] = []
    async with (
        open_house() as house,
        house.connect(7, count) as worker,
        house.connect() as client,
    ):
        id_ = await register(worker, 7)
        arguments = {"connection_id": id_, "operation": {"do": "count"}}

        answer = await client.call("forward", arguments, progress.append)

    assert (progress, answer) == ([{"number": n} for n in range(3)], {"total": 3})


@pytest.mark.parametrize(
    ("arguments", "name", "text"),
    [
        pytest.param({"name": "nope"}, "NoSuchWorker", "'nope'", id="no such worker"),
        pytest.param(
            {"connection_id": "nope", "timeout": 5},
            "NoSuchWorker",
            "'nope'",
            id="no connection",
        ),
        pytest.param(
            {"name": "web.1"},
            "NotConnected",
            "web.1 is not connected (state: backoff)",
            id="not connected",
        ),
        pytest.param({}, "BadRequest", "either connection_id or name", id="nobody"),
        pytest.param(
            {"name": "web.0", "connection_id": "x"}, "BadRequest", "either", id="two"
        ),
        pytest.param(
            {"name": "web.0", "operation": {}}, "BadRequest", "operation.do", id="no do"
        ),
        pytest.param(
            {"name": "web.0", "operation": {"do": 3}},
            "BadRequest",
            "operation.do",
            id="do is no name",
        ),
        pytest.param(
            {"name": "web.0", "operation": {"do": "cancel", "call": 2}},
            "BadRequest",
            "cancel cannot be forwarded",
            id="a cancel within",
        ),
        pytest.param(
            {"name": "web.0", "operation": {"do": "x", "id": 3, "failed": True}},
            "BadRequest",
            "reserved argument names: failed, id",
            id="an envelope within",
        ),
        pytest.param(
            {"name": "web.0", "operation": "x"}, "BadRequest", "operation", id="no call"
        ),
        pytest.param(
            {"name": "web.0", "timeout": 0}, "BadRequest", "timeout", id="no time"
        ),
        pytest.param(
            {"name": "web.0", "operation": {"do": "fail"}},
            "Sulking",
            "not today",
            id="the worker's own failure",
        ),
    ],
)
@in_virtual_time
async def test_unforwardable_call_error_has_reason(
    arguments: dict[str, object], name: str, text: str
) -> None:
    def sulk(call: IncomingCall) -> Answer:
        raise CallFailedError("Sulking", "not today")

    async with (
        open_house() as house,
        house.control(echo),
        house.connect(100, sulk) as worker,
        house.connect() as client,
    ):
        await register(worker, 100, name="web.0")
        with expect(name, text):
            await client.call("forward", {"operation": {"do": "x"}, **arguments})
        assert await client.call("ping", {}) == {}


@in_virtual_time
async def test_silent_worker_call_times_out() -> None:
    """The worker receives the cancellation."""
    is_given_up = trio.Event()

    async def think() -> dict[str, object]:
        try:
            await trio.sleep_forever()
        finally:
            is_given_up.set()
        raise AssertionError

    async with (
        open_house() as house,
        house.connect(7, lambda call: think()) as worker,
        house.connect() as client,
    ):
        await register(worker, 7, name="Falcon")
        arguments = {"name": "Falcon", "operation": {"do": "x"}, "timeout": 5}

        with expect("DeadlineExceeded", "Falcon (pid 7) did not answer 'x' within"):
            await client.call("forward", arguments)

        assert trio.current_time() == 5
        await is_given_up.wait()
        assert trio.current_time() == 5


STOPPED = {"way": "kernel", "data": "it is stopped, as by SIGSTOP: nothing in it runs"}


async def register_stopped(house: House, process_id: int, name: str) -> None:
    """Be a worker that is connected, and then neither reads nor writes."""
    stream = house.connect_stream(process_id)
    state = {"process_id": process_id, "name": name}
    line = json.dumps({"id": 2, "do": "register", "state": state})
    await stream.send_all(line.encode() + b"\n")
    await stream.receive_some()


def see(seen: Mapping[str, object]) -> Dispatch:
    """A controller that sees that of each worker of its own."""

    def controller(call: IncomingCall) -> Answer:
        assert call.do == "inspect"
        assert call.arguments == {"name": "web.0", "process_id": 100}
        return seen

    return controller


@in_virtual_time
async def test_unresponsive_worker_call_fails_in_seconds() -> None:
    """The doctor reports the cause."""
    async with (
        open_house() as house,
        house.control(see(STOPPED)),
        house.connect() as client,
    ):
        await register_stopped(house, 100, "web.0")
        arguments: dict[str, Any] = {"name": "web.0", "timeout": 90}

        text = "web.0 (pid 100) did not answer 'x' within 4.5 s; last message 4.5 s ago"
        with expect("DeadlineExceeded", f"{text}; it is stopped, as by S"):
            await client.call("forward", {**arguments, "operation": {"do": "x"}})
        assert trio.current_time() == 4.5

        report = await client.call(
            "forward", {**arguments, "operation": {"do": "doctor"}}
        )
        assert trio.current_time() == 9
        assert [finding["kind"] for finding in report["findings"]] == ["stopped"]
        assert (report["way"], report["duration"]) == ("kernel", 4.5)


@in_virtual_time
async def test_shorter_deadline_is_respected() -> None:
    async with (
        open_house() as house,
        house.control(see(STOPPED)),
        house.connect() as client,
    ):
        await register_stopped(house, 100, "web.0")
        operation = {"do": "doctor"}
        with expect("DeadlineExceeded", "within 2 s; last message 2.0 s ago"):
            await client.call(
                "forward", {"name": "web.0", "timeout": 2, "operation": operation}
            )
        assert trio.current_time() == 2


@in_virtual_time
async def test_slow_worker_answering_pings_has_full_timeout() -> None:
    async def think() -> dict[str, object]:
        await trio.sleep(80)
        return {"thought": True}

    def think_of_pings_at_once(call: IncomingCall) -> Answer:
        return {} if call.do == "ping" else think()

    async with (
        open_house() as house,
        house.control(see(STOPPED)),
        house.connect(100, think_of_pings_at_once) as worker,
        house.connect() as client,
    ):
        await register(worker, 100, name="web.0")
        arguments = {"name": "web.0", "operation": {"do": "x"}, "timeout": 90}
        assert await client.call("forward", arguments) == {"thought": True}
        assert trio.current_time() == 80


@in_virtual_time
async def test_outside_sample_error_is_reported() -> None:
    def fail(call: IncomingCall) -> Answer:
        raise ZeroDivisionError

    dump = {"name": "web.0", "operation": {"do": "thread_dump"}}
    async with (
        open_house() as house,
        house.connect() as client,
        house.control(fail),
    ):
        with expect("NotConnected", "web.0 is not connected (state: ready); inspect"):
            await client.call("forward", dump)


@in_virtual_time
async def test_doctor_examines_unconnected_worker() -> None:
    doctor = {"name": "web.0", "operation": {"do": "doctor"}}
    async with (
        open_house() as house,
        house.connect() as client,
        house.control(see(STOPPED)),
    ):
        with expect("NotConnected", "web.0 is not connected (state: ready)"):
            await client.call("forward", {**doctor, "operation": {"do": "x"}})
        assert trio.current_time() == 0
        report = await client.call("forward", doctor)
        assert [finding["kind"] for finding in report["findings"]] == ["stopped"]
        assert "within 1.5 s, not connected" in report["data"]
        assert trio.current_time() == 1.5


@in_virtual_time
async def test_late_connected_worker_is_asked_directly() -> None:
    async with (
        open_house() as house,
        house.control(see(STOPPED)),
        house.connect(100, echo) as worker,
        house.connect() as client,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            doctor = {"name": "web.0", "operation": {"do": "doctor"}}
            assert (await client.call("forward", doctor))["asked"] == "doctor"

        nursery.start_soon(ask)
        await trio.sleep(1)
        await register(worker, 100, name="web.0")


@in_virtual_time
async def test_worker_disconnect_fails_call_immediately() -> None:
    async with open_house() as house, house.connect() as client:
        async with trio.open_nursery() as nursery:
            stream = house.connect_stream(7)
            line = {"id": 2, "do": "register", "state": {"process_id": 7}}
            await stream.send_all(json.dumps(line).encode() + b"\n")
            await stream.receive_some()

            async def call() -> None:
                with expect("ConnectionLost"):
                    await client.call(
                        "forward", {"name": "pid-7", "operation": {"do": "x"}}
                    )

            nursery.start_soon(call)
            await stream.receive_some()
            await stream.aclose()
        assert trio.current_time() == 0


ENDED = {
    "way": "ended",
    "data": "it ended: exit code 3",
    "exit": "exit code 3",
    "cause": "exit",
    "is_planned": False,
    "last_lines": ["the disk is full"],
    "stacks": "",
    "post_mortem": "/state/web.0.json",
}


@pytest.mark.parametrize("do", ["x", "doctor"])
@in_virtual_time
async def test_worker_exit_during_call_is_reported(do: str) -> None:
    """The doctor reports it as a finding; any other call fails with it."""
    answers: list[Any] = []
    async with (
        open_house() as house,
        house.control(see(ENDED)),
        house.connect() as client,
        trio.open_nursery() as nursery,
    ):
        stream = house.connect_stream(100)
        state = {"process_id": 100, "name": "web.0"}
        line = json.dumps({"id": 2, "do": "register", "state": state})
        await stream.send_all(line.encode() + b"\n")
        await stream.receive_some()

        async def call() -> None:
            arguments = {"name": "web.0", "operation": {"do": do}}
            try:
                answers.append(await client.call("forward", arguments))
            except CallFailedError as exc:
                answers.append(str(exc))

        nursery.start_soon(call)
        await stream.receive_some()
        await stream.aclose()
    (answer,) = answers
    if do == "x":
        assert "web.0 (pid 100) exited before it answered 'x': exit code 3" in answer
        assert "post-mortem: /state/web.0.json" in answer
        return
    (finding,) = answer["findings"]
    assert (answer["way"], finding["kind"]) == ("ended", "ended")
    assert "exited during the examination: exit code 3" in finding["title"]
    assert finding["evidence"] == ["last output: the disk is full"]
    assert "`post-mortem /state/web.0.json`" in finding["advice"]
    assert answer["data"].startswith(
        "1 problem found in 0 s; the examination is incomplete\n"
    )


@in_virtual_time
async def test_peer_without_call_is_disconnected() -> None:
    """The reason is sent; a peer that called once stays connected."""
    async with open_house() as house:
        silent, quiet = house.connect_stream(7), house.connect_stream(8)
        await quiet.send_all(b'{"id": 2, "do": "ping"}\n')
        assert json.loads(await quiet.receive_some()) == {"id": 2, "finished": True}

        answer = json.loads(await silent.receive_some())

        assert trio.current_time() == DEFAULT_LIMITS.first_call
        assert answer["error"] == {
            "class": "LimitExceeded",
            "message": "no call within 10 s of connecting",
        }
        assert await silent.receive_some() == b""
        await trio.sleep(1000)
        await quiet.send_all(b'{"id": 4, "do": "ping"}\n')
        assert json.loads(await quiet.receive_some()) == {"id": 4, "finished": True}


@in_virtual_time
async def test_peer_that_called_while_the_supervisor_was_stopped_is_answered() -> None:
    """Whichever of the timeout and the reader runs first after that."""
    for process_id in range(7, 27):
        async with open_house() as house:
            stream = house.connect_stream(process_id)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, b'{"id": 2, "do": "ping"}\n')
                sleep_through(DEFAULT_LIMITS.first_call + 5)
            assert json.loads(await stream.receive_some()) == {
                "id": 2,
                "finished": True,
            }


@in_virtual_time
async def test_idle_client_reconnecting_is_told_once() -> None:
    """A waiting Ruby client reconnects after a disconnect."""
    async with open_house() as house:
        first = house.connect_stream(7)
        assert b"no call within" in await first.receive_some()

        again = house.connect_stream(7)
        with trio.move_on_after(1000) as scope:
            await again.receive_some()

        assert scope.cancelled_caught
        await again.send_all(b'{"id": 2, "do": "ping"}\n')
        assert json.loads(await again.receive_some()) == {"id": 2, "finished": True}


@in_virtual_time
async def test_idle_connections_are_limited() -> None:
    """Each costs a descriptor: beyond 64, the next one is closed."""
    async with open_house() as house:
        first = house.connect_stream(7)
        await first.receive_some()
        kept = [house.connect_stream(7) for _ in range(64)]
        await trio.sleep(DEFAULT_LIMITS.first_call + 1)

        assert b"no call within" in await house.connect_stream(7).receive_some()
        for stream in kept:
            await stream.aclose()
        await wait_all_tasks_blocked()
        with trio.move_on_after(100) as scope:
            await house.connect_stream(7).receive_some()
        assert scope.cancelled_caught


@in_virtual_time
async def test_unknown_connection_error_has_ruby_form() -> None:
    """For a call in Ruby's form: without time or name."""
    async with open_house() as house:
        stream = house.connect_stream(7)
        call = {"do": "forward", "connection_id": "nope", "operation": {"do": "x"}}
        await stream.send_all(json.dumps({"id": 8, **call}).encode() + b"\n")

        assert json.loads(await stream.receive_some()) == {
            "id": 8,
            "finished": True,
            "failed": True,
            "error": "Connection not found",
            "connection_id": "nope",
        }


@pytest.mark.parametrize(
    "arguments", [{"state": None}, {}, {"state": {}}], ids=["null", "none", "empty"]
)
@in_virtual_time
async def test_register_without_state(
    arguments: dict[str, object],
) -> None:
    """Ruby's workers send none by default; the kernel identifies the process."""
    async with open_house() as house, house.connect(7) as worker:
        id_ = (await worker.call("register", arguments))["connection_id"]

        (connection,) = (await worker.call("status", {}))["connections"]
        assert connection == {
            "connection_id": id_,
            "process_id": 7,
            "state": {"process_id": 7, "connection_id": id_},
        }


@in_virtual_time
async def test_shared_worker_name_is_ambiguous() -> None:
    async with (
        open_house() as house,
        house.connect(7, lambda _: {"pid": 7}) as one,
        house.connect(8, lambda _: {"pid": 8}) as two,
        house.connect() as client,
    ):
        ids = [await register(p, i, name="Falcon") for p, i in ((one, 7), (two, 8))]

        async def who(name: str) -> object:
            call = {"name": name, "operation": {"do": "who"}}
            return (await client.call("forward", call))["pid"]

        with expect("AmbiguousName", "'Falcon' names 2 workers") as caught:
            await who("Falcon")
        for text in (*ids, "pid 7", "pid 8"):
            assert text in caught.value.message
        assert [await who(word) for word in (*ids, "7", "8", "pid-8")] == [
            7,
            8,
            7,
            8,
            8,
        ]


@in_virtual_time
async def test_disconnected_worker_makes_no_name_ambiguous() -> None:
    """Its end of file may be read just after the next call."""
    async with (
        open_house() as house,
        house.connect() as client,
        house.connect(8, echo) as worker,
        trio.open_nursery() as nursery,
    ):
        await register(worker, 8, name="Falcon")
        leaving = house.connect_stream(7)
        state = {"process_id": 7, "name": "Falcon"}
        call = {"id": 2, "do": "register", "state": state}
        await leaving.send_all(json.dumps(call).encode() + b"\n")
        await leaving.receive_some()

        async def ask() -> None:
            call = {"name": "Falcon", "operation": {"do": "who"}}
            assert (await client.call("forward", call))["asked"] == "who"

        nursery.start_soon(ask)
        await trio.sleep(0.01)
        await leaving.aclose()


@pytest.mark.parametrize("do", ["restart", "stop", "start"])
@in_virtual_time
async def test_control_accepts_connection_ids_and_pids(do: str) -> None:
    """The controller receives names; workers it did not start cannot be controlled."""
    asked: list[object] = []

    def controller(call: IncomingCall) -> Answer:
        asked.append(call.arguments["names"])
        return {}

    async with (
        open_house() as house,
        house.control(controller),
        house.connect(100) as worker,
        house.connect(8) as stranger,
        house.connect() as client,
    ):
        id_ = await register(worker, 100, name="web.0")
        foreign = await register(stranger, 8, name="Falcon")
        for words in ([id_], ["100"], ["pid-100"], ["web.0"], ["web"], ["other"]):
            await client.call(do, {"names": words})
        for word in (foreign, "8", "Falcon"):
            with expect("NotManaged", "Falcon (pid 8, connection"):
                await client.call(do, {"names": ["web.0", word]})

    assert asked == [[n] for n in ("web.0", "web.0", "web.0", "web.0", "web", "other")]


@in_virtual_time
async def test_disconnect_without_call_is_released_immediately() -> None:
    """Its descriptor is not kept until the first-call timeout."""
    async with open_house() as house:
        stream = house.connect_stream(7)
        await wait_all_tasks_blocked()
        assert isinstance(stream, trio.StapledStream)
        await stream.send_stream.aclose()

        assert await stream.receive_some() == b""
        assert trio.current_time() == 0


@in_virtual_time
async def test_peer_over_limit_is_disconnected_alone() -> None:
    limits = DEFAULT_LIMITS._replace(line=100, calls=2)
    async with (
        open_house(limits) as house,
        house.connect() as another,
    ):
        stream = house.connect_stream(7)
        await stream.send_all(b"x" * 200)
        answer = json.loads(await stream.receive_some())
        assert answer["error"]["class"] == "LimitExceeded"
        assert await stream.receive_some() == b""

        stream = house.connect_stream(8)
        for id_ in (2, 4, 6):
            line = {"id": id_, "do": "workers", "wait_ready": True}
            await stream.send_all(json.dumps(line).encode() + b"\n")
        answer = json.loads(await stream.receive_some())
        assert answer["error"]["class"] == "LimitExceeded"
        assert "more than 2 calls in flight" in answer["error"]["message"]

        assert await another.call("ping", {}) == {}


@in_virtual_time
async def test_other_user_is_refused_without_details() -> None:
    async with open_house() as house:
        stream = house.connect_stream(7, user_id=NOBODY)
        await stream.send_all(b'{"id": 2, "do": "ping"}\n')

        answer = json.loads(await stream.receive_some())

        assert answer["error"] == {
            "class": "NotPermitted",
            "message": f"user {NOBODY} may not connect here",
        }
        assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    ("do", "arguments"),
    [
        ("restart", {}),
        ("restart", {"names": ["web.0"], "reason": "why not"}),
        ("restart", {"signal": "TERM"}),
        ("restart", {"rolling": True, "max_unavailable": 2}),
        ("reload", {"changed_only": True, "dry_run": True}),
        ("scale", {"counts": {"web": 8}}),
        ("health", {"kind": "readiness"}),
        ("stop", {"names": ["web"]}),
        ("start", {"names": ["web"]}),
        ("shutdown", {}),
        ("abort_reload", {}),
        ("events", {}),
        ("logs", {"names": ["web"], "tail": 3}),
    ],
)
@in_virtual_time
async def test_control_is_forwarded_to_controller(
    do: str, arguments: dict[str, object]
) -> None:
    """Its answers and failures are forwarded."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def controller(call: IncomingCall) -> Answer:
        asked.append((call.do, call.arguments))
        if len(asked) > 1:
            raise NoSuchWorkerError("nobody of that name")
        return {}

    async with open_house() as house, house.connect() as client:
        with expect("Unavailable", "the controller is not connected"):
            await client.call(do, arguments)
        async with house.control(controller):
            assert await client.call(do, arguments) == {}
            with expect("NoSuchWorker", "nobody of that name"):
                await client.call(do, arguments)
        await wait_all_tasks_blocked()
        with expect("Unavailable"):
            await client.call(do, arguments)

    assert [name for name, _ in asked] == [do, do]
    assert arguments.items() <= asked[0][1].items()


@in_virtual_time
async def test_hup_reloads_application() -> None:
    """As for Ruby's clients: `serve` reloads on SIGHUP."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def controller(call: IncomingCall) -> Answer:
        asked.append((call.do, call.arguments))
        return {"generation": 2, "lines": []}

    async with (
        open_house() as house,
        house.control(controller),
        house.connect() as client,
    ):
        answer = await client.call("restart", {"signal": "HUP"})
    assert answer == {"generation": 2, "lines": []}
    [(do, arguments)] = asked
    assert do == "reload"
    assert not any(arguments.values())


@pytest.mark.parametrize("signal", ["KILL", "SIGHUP", "", "hup"])
@in_virtual_time
async def test_signal_named_by_peer_is_not_sent(signal: str) -> None:
    async with open_house() as house, house.control(echo), house.connect() as client:
        with expect("BadRequest", "signal: expected HUP, INT or TERM, got"):
            await client.call("restart", {"signal": signal})


@in_virtual_time
async def test_monitor_restarts_only_seen_incarnation() -> None:
    asked: list[dict[str, Any]] = []

    def controller(call: IncomingCall) -> Answer:
        asked.append(call.arguments)
        return {}

    async with (
        open_house() as house,
        house.control(controller),
        house.connect(100) as worker,
        house.connect(666) as stranger,
    ):
        await register(worker, 100, name="web.0")
        await register(stranger, 666, name="Falcon")
        managed, unmanaged = house.monitor.workers

        assert managed.is_ready
        await managed.restart("too large")
        with pytest.raises(NoSuchWorkerError, match="Falcon was not started by the co"):
            await unmanaged.restart("too large")

    (arguments,) = asked
    assert arguments["names"] == ["web.0"]
    assert (arguments["incarnation"], arguments["reason"]) == (2, "too large")
    assert arguments["generation"] == 1, "not of a namesake that a reload starts"


@in_virtual_time
async def test_monitor_calls_its_worker() -> None:
    async with open_house() as house, house.connect(7, echo) as worker:
        await register(worker, 7, name="Falcon")
        (handle,) = house.monitor.workers

        answer = await handle.call("memory_sample", duration=3)

        assert answer == {"asked": "memory_sample", "arguments": {"duration": 3}}
        assert (handle.name, handle.process_id, handle.uptime) == ("Falcon", 7, None)
        assert handle.state == {"process_id": 7, "name": "Falcon"}


@in_virtual_time
async def test_monitor_unsupported_call_is_refused() -> None:
    async with (
        open_house() as house,
        house.control(echo) as controller,
        house.connect() as client,
    ):
        with expect("UnknownOperation", "'dance'"):
            await client.call("dance", {})
        with expect("UnknownOperation", "'thread_dump'"):
            await client.call("thread_dump", {})
        with expect("UnknownOperation", "'update'"):
            await client.call("update", {"workers": []})
        with expect("UnknownOperation", "'status'"):
            await controller.call("status", {})
        with expect("BadRequest", "names"):
            await client.call("stop", {"names": []})


@in_virtual_time
async def test_wait_ready_is_answered_when_ready() -> None:
    async with open_house() as house, house.connect() as client:
        with trio.move_on_after(3):
            await client.call("workers", {"wait_ready": True})
            raise AssertionError("nothing was ready")
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                report = await client.call("workers", {"wait_ready": True})
                assert [w["name"] for w in report["workers"]] == ["web.0"]

            nursery.start_soon(wait)
            await trio.sleep(2)
            house.server.registry.update([record("web.0", 100)], 0)
            async with house.connect(100) as worker:
                await register(worker, 100, name="web.0")
                await wait_all_tasks_blocked()
        assert trio.current_time() == 5


def test_fake_worker_satisfies_monitor_protocol() -> None:
    worker: MonitoredWorker = FakeMonitoredWorker()
    assert worker.is_ready


@in_virtual_time
async def test_answer_queued_behind_slow_send_is_kept() -> None:
    """As with a client that reads slowly."""
    ours, theirs = memory_stream_pair()
    reads_on = trio.Event()

    async def answer_after_progress(call: IncomingCall) -> dict[str, object]:
        call.progress({"half": True})
        await wait_all_tasks_blocked()
        return {"half": False}

    pump = theirs.send_stream.send_all_hook
    assert pump is not None

    async def pump_later() -> None:
        await reads_on.wait()
        await pump()

    theirs.send_stream.send_all_hook = pump_later
    async with (
        open_peer(theirs, Session(is_connecting=False), answer_after_progress),
        open_peer(ours, Session(is_connecting=True)) as client,
        trio.open_nursery() as nursery,
    ):

        async def call() -> None:
            assert await client.call("x", {}) == {"half": False}

        nursery.start_soon(call)
        await trio.sleep(5)
        reads_on.set()
    assert trio.current_time() == 5


@pytest.mark.parametrize("do", ["status", "workers"])
@in_virtual_time
async def test_new_supervisor_waits_for_controller_state(do: str) -> None:
    """Otherwise workers that registered early would be strangers."""
    async with open_house() as house, house.connect() as client:
        found: list[dict[str, Any]] = []

        async def ask() -> None:
            found.append(await client.call(do, {}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            assert found == []
            async with house.control(refuse_calls):
                await wait_all_tasks_blocked()
        assert trio.current_time() == 1
        (report,) = found
        assert [worker["name"] for worker in report["workers"]] == ["web.0", "web.1"]


@in_virtual_time
async def test_silent_controller_delays_only_briefly() -> None:
    async with open_house() as house, house.connect() as client:
        report = await client.call("status", {})
        assert report["workers"] == []
        assert trio.current_time() == 2


@in_virtual_time
async def test_killed_worker_connection_ends_despite_child() -> None:
    """A child holds the connection, but the process was replaced."""
    gone = 2**22 + 1  # above the highest process id of Linux
    async with open_house() as house, house.control(refuse_calls) as controller:
        update = Update(workers=(record("web.0", gone),), is_snapshot=True, sequence=1)
        await controller.call(*unparse_operation(update))
        async with house.connect(gone) as worker:
            await register(worker, gone, name="web.0")
            update = Update(workers=(record("web.0", os.getpid()),), sequence=2)
            await controller.call(*unparse_operation(update))
            await worker.closed.wait()
        assert not house.server.registry.connections


@in_virtual_time
async def test_stopping_worker_connection_stays_open() -> None:
    async with open_house() as house, house.control(refuse_calls) as controller:
        mine = os.getpid()
        update = Update(workers=(record("web.0", mine),), is_snapshot=True, sequence=1)
        await controller.call(*unparse_operation(update))
        async with house.connect(mine) as worker:
            await register(worker, mine, name="web.0")
            update = Update(workers=(record("web.0", None),), sequence=2)
            await controller.call(*unparse_operation(update))
            await wait_all_tasks_blocked()
            assert not worker.closed.is_set()


@pytest.mark.parametrize(
    ("letter", "seconds", "shown"),
    [
        ("S", 5, ("", None)),
        ("S", 13, ("", 13.0)),
        ("T", 0.5, ("", None)),
        ("T", 5, ("stopped", 5.0)),
    ],
)
@in_virtual_time
async def test_stale_state_reports_its_age(
    letter: str, seconds: float, shown: tuple[str, float | None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "trio_supervisor.supervisor.controller_link.state_of", lambda _: letter
        )
        async with open_house() as house, house.control(refuse_calls) as controller:
            await controller.call("ping", {})
            await trio.sleep(seconds)
            told = house.server.calls.status_fields(is_full=False)["controller"]
    assert (told["state"], told["silent_for"]) == shown


# The end of a supervisor that another one follows.


async def finish_calls_of(house: House, seconds: list[float]) -> None:
    began = trio.current_time()
    await house.server.finish_calls()
    seconds.append(trio.current_time() - began)


@in_virtual_time
@pytest.mark.parametrize(
    ("is_followed", "takes", "waited"), [(True, 1, 1), (True, 9, 2), (False, 1, 0)]
)
async def test_calls_in_progress_are_answered_before_the_end(
    is_followed: bool, takes: float, waited: float
) -> None:
    """For two seconds; a stream, and a call to come, delay nothing."""

    async def wait(call: IncomingCall) -> dict[str, object]:
        await trio.sleep(takes)
        return {"not_ready": {}}

    def scale(call: IncomingCall) -> Answer:
        return wait(call)

    found: list[object] = []
    seconds: list[float] = []
    async with open_house() as house, house.control(scale), house.connect() as client:

        async def ask() -> None:
            found.append(await client.call("scale", {"counts": {"web": 3}}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            if is_followed:
                house.server.accepting.cancel()
            await finish_calls_of(house, seconds)
            await wait_all_tasks_blocked()
            assert len(found) == (takes == waited)
            nursery.cancel_scope.cancel()
    assert seconds == [waited]
