"""The client's API over a real socket: what it sends, and what it makes of answers."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kits.ruby_server import IDS, NAME, RubyServer, open_ruby_server
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    NoSuchWorkerError,
    NoSupervisorError,
    RemoteProtocolError,
    UnavailableError,
)
from trio_supervisor.link.client import Client, open_client
from trio_supervisor.link.entries import Entries, Entry
from trio_supervisor.link.foreign_server import PROBE, ForeignServerError
from trio_supervisor.link.listener import keep_listener
from trio_supervisor.link.peer import Answer, Dispatch, Fields, IncomingCall, open_peer
from trio_supervisor.policy.addressing import AmbiguousNameError
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.messages import (
    ControllerStatus,
    StatusReport,
    SupervisorStatus,
)
from trio_supervisor.wire.reports import Frame, ThreadReport, ThreadStack
from trio_supervisor.wire.session import Session

REPORT = StatusReport(
    supervisor=SupervisorStatus(process_id=2, incarnation=1, uptime=1.5),
    controller=ControllerStatus(process_id=1, version="1.0"),
    workers=(),
)
THREADS = ThreadReport(
    data="text",
    threads=(
        ThreadStack(
            name="MainThread",
            ident=1,
            is_daemon=False,
            is_main=True,
            frames=(Frame(file="app.py", line=7, function="main"),),
        ),
    ),
)


@asynccontextmanager
async def open_both(dispatch: Dispatch) -> AsyncIterator[Client]:
    """A client of a server that answers by *dispatch*."""

    async def serve(stream: trio.abc.Stream) -> None:
        async with open_peer(stream, Session(is_connecting=False), dispatch) as peer:
            await peer.closed.wait()

    with tempfile.TemporaryDirectory(prefix="ts") as directory, trio.fail_after(30):
        path = f"{directory}/s.ipc"
        with keep_listener(path) as kept:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(kept.socket))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, serve, [listener])
                async with open_client(path) as client:
                    yield client
                nursery.cancel_scope.cancel()


async def test_reload_says_how_a_canary_is_tried() -> None:
    calls: list[Fields] = []

    def dispatch(call: IncomingCall) -> Answer:
        calls.append({"do": call.do, **call.arguments})
        return {"generation": 2, "lines": [], "canaries": ["web.3"]}

    async with open_both(dispatch) as client:
        report = await client.reload(canary=2, canary_for=5.0)
    assert report.canaries == ("web.3",)
    assert calls[-1] == {
        "do": "reload",
        "changed_only": False,
        "dry_run": False,
        "canary": 2,
        "canary_for": 5.0,
    }


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda c: c.ping(), {"do": "ping"}),
        (
            lambda c: c.restart(),
            {
                "do": "restart",
                "names": None,
                "signal": None,
                "reason": "",
                "incarnation": None,
                "rolling": False,
                "max_unavailable": 1,
                "generation": None,
            },
        ),
        (
            lambda c: c.restart("web.0", "jobs"),
            {
                "do": "restart",
                "names": ["web.0", "jobs"],
                "signal": None,
                "reason": "",
                "incarnation": None,
                "rolling": False,
                "max_unavailable": 1,
                "generation": None,
            },
        ),
        (lambda c: c.stop("web"), {"do": "stop", "names": ["web"]}),
        (lambda c: c.start("web"), {"do": "start", "names": ["web"]}),
        (lambda c: c.shutdown(), {"do": "shutdown", "wait": True}),
        (lambda c: c.shutdown(wait=False), {"do": "shutdown", "wait": False}),
        (
            lambda c: c.forward("web.0", "garbage_profile_start", timeout=5, every=2),
            {
                "do": "forward",
                "operation": {"do": "garbage_profile_start", "every": 2},
                "connection_id": None,
                "name": "web.0",
                "timeout": 5,
            },
        ),
    ],
)
async def test_method_makes_one_call(
    use: Callable[[Client], Coroutine[Any, Any, object]], expected: Fields
) -> None:
    calls: list[Fields] = []

    def dispatch(call: IncomingCall) -> Answer:
        calls.append({"do": call.do, **call.arguments})
        return {}

    async with open_both(dispatch) as client:
        await use(client)
        await use(client)
    probe = {"do": PROBE[0], **PROBE[1]}
    assert calls == [probe, expected, expected], "who is there is asked once"


async def test_status_has_its_types_and_monitors() -> None:
    def dispatch(call: IncomingCall) -> Answer:
        if call.do == "status":
            call.progress({"memory_monitor": {"total": 7}})
            call.progress({"other": {}})
        return to_fields(REPORT)

    monitors: list[Fields] = []
    async with open_both(dispatch) as client:
        assert await client.status(monitors.append) == REPORT
        assert await client.status() == REPORT
        assert await client.workers() == REPORT.workers
    assert monitors == [{"memory_monitor": {"total": 7}}, {"other": {}}]


async def test_thread_dump_has_its_types() -> None:
    async with open_both(lambda call: to_fields(THREADS)) as client:
        assert await client.thread_dump("web.0") == THREADS


async def test_answer_of_wrong_types_is_remote_error() -> None:
    """The message names the field; the client stays usable."""
    async with open_both(lambda call: {"supervisor": 7, "workers": []}) as client:
        with pytest.raises(RemoteProtocolError, match="supervisor"):
            await client.status()
        await client.ping()


async def test_failure_keeps_its_name() -> None:
    def dispatch(call: IncomingCall) -> Answer:
        raise NoSuchWorkerError("no worker has the name 'x'")

    async with open_both(dispatch) as client:
        with pytest.raises(CallFailedError) as caught:
            await client.restart("x")
        assert caught.value.error_class == "NoSuchWorker"


async def test_supervisor_exit_raises_connection_lost() -> None:
    async def go_away(call: IncomingCall) -> Fields:
        call.peer.close()
        await trio.sleep_forever()
        return {}

    async with open_both(lambda call: go_away(call)) as client:
        with pytest.raises(ConnectionLostError):
            await client.ping()
        with pytest.raises(ConnectionLostError):
            await client.ping()


async def read(opened: AbstractAsyncContextManager[Entries]) -> list[Entry]:
    """Return all entries."""
    async with opened as entries:
        return [entry async for entry in entries]


async def test_events_iterate_over_all_answers() -> None:
    calls: list[Fields] = []

    def dispatch(call: IncomingCall) -> Answer:
        calls.append({"do": call.do, **call.arguments})
        if call.do in {"events", "logs"}:
            call.progress({"snapshot": {"workers": []}})
            call.progress({"entries": [{"n": 1}, {"n": 2}]})
            call.progress({"entries": [], "missed": 3})
            call.progress({"entries": [{"n": 3}], "missed": 4})
        return {}

    async with open_both(dispatch) as client:
        async with client.events() as events:
            found = [entry["n"] async for entry in events]
            assert (found, events.missed) == ([1, 2, 3], 7)
        async with client.logs("web", "jobs.0", tail=5) as lines:
            assert [entry["n"] async for entry in lines] == [1, 2, 3]
    assert calls[1:] == [
        {"do": "events", "follow": False},
        {"do": "logs", "names": ["web", "jobs.0"], "tail": 5, "follow": False},
    ]


async def test_followed_events_end_with_block() -> None:
    """The call is cancelled at the server, and the client stays usable."""
    cancelled = trio.Event()

    async def stream(call: IncomingCall) -> Fields:
        try:
            for number in itertools.count():
                await call.stream({"entries": [{"n": number}]})
                if number == 2:
                    await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise
        return {}

    def dispatch(call: IncomingCall) -> Answer:
        return stream(call) if call.do == "events" else {}

    async with open_both(dispatch) as client:
        async with client.events(follow=True) as events:
            async for entry in events:
                if entry["n"] == 2:
                    break
        await cancelled.wait()
        await client.ping()


async def test_failed_events_raise_in_loop() -> None:
    async def fail(call: IncomingCall) -> Fields:
        call.progress({"entries": [{"n": 1}]})
        raise UnavailableError("no output is captured")

    def dispatch(call: IncomingCall) -> Answer:
        return fail(call) if call.do == "logs" else {}

    async with open_both(dispatch) as client, client.logs() as lines:
        assert await anext(lines) == {"n": 1}
        with pytest.raises(CallFailedError, match="no output is captured"):
            await anext(lines)


@pytest.mark.parametrize("answer", [{"entries": 7}, {"missed": "3"}, {"missed": True}])
async def test_events_of_wrong_types_are_remote_error(answer: Fields) -> None:
    def dispatch(call: IncomingCall) -> Answer:
        if call.do == "events":
            call.progress(answer)
        return {}

    async with open_both(dispatch) as client:
        with pytest.raises(RemoteProtocolError, match="a list of entries"):
            await read(client.events())
        await client.ping()


async def test_error_in_events_block_is_not_grouped() -> None:
    """The task group of the call is an implementation detail."""
    async with open_both(lambda call: {}) as client:
        with pytest.raises(KeyError, match="mine"):
            async with client.events(follow=True):
                raise KeyError("mine")


def test_client_constructor_is_private() -> None:
    with pytest.raises(TypeError, match="Client has no public constructor"):
        Client()  # type: ignore[call-arg]  # as a user would


@pytest.mark.parametrize("kind", ["nothing", "file"])
async def test_missing_supervisor_error_has_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.ipc"
    if kind == "file":
        path.touch()
    with pytest.raises(NoSupervisorError, match=str(path)):
        async with open_client(str(path)):
            pytest.fail("there is nobody")


async def test_many_progress_lines_arrive_in_order() -> None:
    """More than a socket buffer holds, in both directions."""

    async def count(call: IncomingCall) -> Fields:
        for number in range(10_000):
            call.progress({"number": number, "padding": 100 * "x"})
        return {}

    numbers: list[int] = []
    async with open_both(lambda call: count(call)) as client:
        await client.forward(
            "web.0", "count", on_progress=lambda f: numbers.append(f["number"])
        )
    assert numbers == list(range(10_000))


async def test_long_argument_and_answer_arrive_whole() -> None:
    """More than a socket accepts in one write."""
    text = 250_000 * "x"

    def echo(call: IncomingCall) -> Answer:
        return {"text": 12 * call.arguments["operation"]["text"]}

    async with open_both(echo) as client:
        assert await client.forward("web.0", "echo", text=text) == {"text": 12 * text}


# At a server that is not ours.


@asynccontextmanager
async def open_at_ruby() -> AsyncIterator[tuple[Client, RubyServer]]:
    with (
        tempfile.TemporaryDirectory(prefix="ts") as directory,
        open_ruby_server(Path(directory)) as server,
        trio.fail_after(30),
    ):
        async with open_client(str(server.path)) as client:
            yield client, server


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.restart(),
        lambda c: c.restart("web.0"),
        lambda c: c.stop("web"),
        lambda c: c.start("web"),
        lambda c: c.scale({"web": 2}),
        lambda c: c.health("readiness"),
        lambda c: c.reload(dry_run=True),
        lambda c: c.abort_reload(),
        lambda c: read(c.events()),
        lambda c: read(c.logs("web")),
    ],
)
async def test_foreign_server_unsupported_call_is_not_sent(
    use: Callable[[Client], Coroutine[Any, Any, object]],
) -> None:
    async with open_at_ruby() as (client, server):
        with pytest.raises(ForeignServerError, match="is not trio_supervisor: it "):
            await use(client)
        assert server.operations == []


async def test_foreign_server_supported_calls_work() -> None:
    async with open_at_ruby() as (client, server):
        server.answers["thread_dump"] = {"data": "#<Thread>"}

        await client.ping()
        found = await client.workers()
        report = await client.status()
        dump = await client.thread_dump("13510")
        await client.reload()
        await client.shutdown()

        assert await client.is_foreign()
        assert [(w.name, w.process_id, w.is_managed) for w in found] == [
            (NAME, process_id, False) for process_id in IDS
        ]
        assert report.supervisor is None
        assert dump.data == "#<Thread>"
        with pytest.raises(AmbiguousNameError, match="names 2 workers"):
            await client.thread_dump(NAME)
        with pytest.raises(NoSuchWorkerError, match=r"'web\.0'; there are: Async"):
            await client.thread_dump("web.0")
    assert [call.get("signal") for call in server.calls if call["do"] == "restart"] == [
        "HUP",
        "INT",
    ]
    assert server.calls.count({"do": PROBE[0], **PROBE[1]}) == 1
