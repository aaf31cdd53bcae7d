"""Calls over a connection, and their failures, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio
from trio.testing import (
    lockstep_stream_pair,
    memory_stream_pair,
    memory_stream_pump,
    wait_all_tasks_blocked,
)

from trio_supervisor.errors import (
    BadRequestError,
    CallFailedError,
    ConnectionLostError,
    LimitExceededError,
    LocalProtocolError,
    NoSuchWorkerError,
    RemoteProtocolError,
    UnavailableError,
)
from trio_supervisor.link.peer import (
    Answer,
    Dispatch,
    Fields,
    IncomingCall,
    Peer,
    open_peer,
    refuse_calls,
)
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.limits import Limits
from trio_supervisor.wire.session import Session

Stream: TypeAlias = trio.StapledStream[
    trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream
]


def connecting(**limits: int) -> Session:
    return Session(is_connecting=True, limits=Limits(**limits))


def accepting(**limits: int) -> Session:
    return Session(is_connecting=False, limits=Limits(**limits))


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def answer(id_: int, **fields: object) -> bytes:
    return line(id=id_, finished=True, **fields)


async def received(stream: Stream) -> list[Any]:
    """Return the objects sent to *stream* since the last call."""
    data = b""

    async def read() -> None:
        nonlocal data
        while piece := await stream.receive_some():
            data += piece

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return [json.loads(each) for each in data.splitlines()]


@asynccontextmanager
async def open_two(
    dispatch: Dispatch,
    their_dispatch: Dispatch = refuse_calls,
    **limits: int,
) -> AsyncIterator[tuple[Peer, Peer]]:
    """A peer that calls, and one that answers by *dispatch*."""
    ours, theirs = memory_stream_pair()
    async with (
        open_peer(theirs, accepting(**limits), dispatch) as answering,
        open_peer(ours, connecting(**limits), their_dispatch) as calling,
    ):
        yield calling, answering


def echo(call: IncomingCall) -> Answer:
    return call.arguments


def in_a_task(answer: Dispatch, seconds: float = 0) -> Dispatch:
    """Answer with a coroutine, *seconds* later."""

    def dispatch(call: IncomingCall) -> Answer:
        async def run() -> Fields:
            await trio.sleep(seconds)
            result = answer(call)
            assert not hasattr(result, "send")
            return result

        return run()

    return dispatch


at_once_and_later = pytest.mark.parametrize(
    "how", [lambda dispatch: dispatch, in_a_task], ids=["at once", "in a task"]
)
How: TypeAlias = Callable[[Dispatch], Dispatch]


async def expect_lost(peer: Peer, do: str = "status") -> None:
    with pytest.raises(ConnectionLostError):
        await peer.call(do, {})


# Good connections.


@at_once_and_later
@in_virtual_time
async def test_call_returns_answer(how: How) -> None:
    async with open_two(how(echo)) as (peer, _):
        fields = {"deep": [1, None, {"x": "ü"}]}
        assert await peer.call("echo", fields) == fields
        assert await peer.call("echo", {}) == {}


@in_virtual_time
async def test_call_from_both_sides_at_a_time() -> None:
    """Also while answering, as the supervisor does to forward calls."""

    async with open_two(in_a_task(echo, 1), echo) as (peer, other):
        results: list[object] = []

        async def call(who: Peer, number: int) -> None:
            results.append(await who.call("echo", {"number": number}))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(call, peer if number % 2 else other, number)
        assert sorted(results, key=str) == sorted(
            ({"number": number} for number in range(20)), key=str
        )
        assert trio.current_time() == 1


@in_virtual_time
async def test_call_answers_arrive_in_any_order() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer, trio.open_nursery() as nursery:
        found: dict[str, object] = {}

        async def call(name: str) -> None:
            found[name] = await peer.call(name, {})

        for name in ("first", "second"):
            nursery.start_soon(call, name)
            await wait_all_tasks_blocked()
        await theirs.send_all(answer(4, data=2) + answer(2, data=1))
        await wait_all_tasks_blocked()
        assert found == {"first": {"data": 1}, "second": {"data": 2}}


@in_virtual_time
async def test_call_intermediate_answers_before_the_last() -> None:
    async def count(call: IncomingCall) -> Fields:
        for number in range(3):
            call.progress({"number": number})
            await trio.sleep(1)
        return {"counted": 3}

    seen: list[tuple[float, object]] = []
    async with open_two(lambda call: count(call)) as (peer, _):
        last = await peer.call(
            "count", {}, lambda fields: seen.append((trio.current_time(), fields))
        )
    assert seen == [(n, {"number": n}) for n in range(3)]
    assert last == {"counted": 3}


@in_virtual_time
async def test_call_without_on_progress_ignores_progress() -> None:
    def dispatch(call: IncomingCall) -> Answer:
        call.progress({"number": 1})
        return {"done": True}

    async with open_two(dispatch) as (peer, _):
        assert await peer.call("x", {}) == {"done": True}


@in_virtual_time
async def test_call_failing_on_progress_fails_only_its_call() -> None:
    """For example if the client that it forwards to no longer reads."""
    given_up: list[object] = []

    async def stream(call: IncomingCall) -> Fields:
        try:
            while True:
                call.progress({"number": 1})
                await trio.sleep(1)
        finally:
            given_up.append(trio.current_time())

    def listen(fields: object) -> None:
        raise ConnectionLostError("the client is gone")

    async with open_two(lambda call: stream(call) if call.do == "stream" else {}) as (
        peer,
        _,
    ):
        with pytest.raises(ConnectionLostError, match="the client is gone"):
            await peer.call("stream", {}, listen)
        assert await peer.call("ping", {}) == {}
        assert given_up == [0]


# Calls that fail.


@at_once_and_later
@in_virtual_time
async def test_call_supervisor_error_arrives_by_name(how: How) -> None:
    def dispatch(call: IncomingCall) -> Answer:
        raise NoSuchWorkerError("no worker has the name 'web.9'")

    async with open_two(how(dispatch)) as (peer, _):
        with pytest.raises(CallFailedError) as caught:
            await peer.call("forward", {})
        assert caught.value.error_class == "NoSuchWorker"
        assert caught.value.message == "no worker has the name 'web.9'"


@at_once_and_later
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("secret in /srv/app.py"), id="a bug"),
        pytest.param(
            ExceptionGroup("secret", [ValueError("secret")]), id="a bug in a nursery"
        ),
        pytest.param(
            ExceptionGroup("secret", [ValueError(), KeyError("secret")]), id="two bugs"
        ),
        pytest.param(RecursionError("secret"), id="too deep"),
    ],
)
@in_virtual_time
async def test_call_other_error_is_sent_without_details(
    how: How, error: Exception
) -> None:
    """Without traceback, path or message, which are only logged."""

    def dispatch(call: IncomingCall) -> Answer:
        if call.do == "good":
            return {}
        raise error

    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), how(dispatch)):
        await ours.send_all(line(id=2, do="bad") + line(id=4, do="good"))
        bad, good = sorted(await received(ours), key=lambda each: int(each["id"]))
        assert bad["error"]["class"] == "OperationFailed"
        assert "see the log" in bad["error"]["message"]
        for leaked in ("secret", "Traceback", "/", ".py"):
            assert leaked not in json.dumps(bad)
        assert good == {"id": 4, "finished": True}


@in_virtual_time
async def test_call_single_error_in_group_keeps_name() -> None:
    def dispatch(call: IncomingCall) -> Answer:
        raise ExceptionGroup("nursery", [BadRequestError("names: too many")])

    async with open_two(in_a_task(dispatch)) as (peer, _):
        with pytest.raises(CallFailedError, match="BadRequest: names: too many"):
            await peer.call("restart", {})


@at_once_and_later
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"data": object()}, id="no JSON"),
        pytest.param({"data": {1: 2}}, id="no JSON keys"),
        pytest.param({"id": 7}, id="a field of the envelope"),
        pytest.param({"data": "x" * 1000}, id="longer than a line"),
        pytest.param({"data": [[[[[[[[[]]]]]]]]]}, id="too deep"),
    ],
)
@in_virtual_time
async def test_call_unsendable_answer_fails_only_its_call(
    how: How, fields: Fields
) -> None:
    def dispatch(call: IncomingCall) -> Answer:
        return fields if call.do == "bad" else {}

    async with open_two(how(dispatch), line=500, depth=8) as (peer, _):
        with pytest.raises(CallFailedError) as caught:
            await peer.call("bad", {})
        assert caught.value.error_class == "LocalProtocol"
        assert "the answer to 'bad'" in str(caught.value)
        assert await peer.call("good", {}) == {}


@at_once_and_later
@in_virtual_time
async def test_call_too_long_error_fails_only_its_call(how: How) -> None:
    def dispatch(call: IncomingCall) -> Answer:
        if call.do == "bad":
            raise BadRequestError(1000 * "x")
        return {}

    async with open_two(how(dispatch), line=500) as (peer, _):
        with pytest.raises(CallFailedError):
            await peer.call("bad", {})
        assert await peer.call("good", {}) == {}


@in_virtual_time
async def test_call_unsendable_progress_fails_its_call() -> None:
    def dispatch(call: IncomingCall) -> Answer:
        call.progress({"x": object()})
        return {}

    async with open_two(dispatch) as (peer, _):
        with pytest.raises(CallFailedError, match="LocalProtocol"):
            await peer.call("bad", {})


@in_virtual_time
async def test_call_unsendable_arguments_raise_locally() -> None:
    async with open_two(echo) as (peer, _):
        with pytest.raises(LocalProtocolError):
            await peer.call("echo", {"x": object()})
        with pytest.raises(LocalProtocolError):
            await peer.call("echo", {"do": "x"})
        assert await peer.call("echo", {}) == {}


@in_virtual_time
async def test_refuse_calls() -> None:
    async with open_two(refuse_calls) as (peer, _):
        with pytest.raises(CallFailedError, match="UnknownOperation"):
            await peer.call("x" * 1000, {})


@in_virtual_time
async def test_call_limit_of_calls_in_flight() -> None:
    async with open_two(in_a_task(echo, 5), calls=3) as (peer, _):
        async with trio.open_nursery() as nursery:
            for _i in range(3):
                nursery.start_soon(peer.call, "echo", {})
            await wait_all_tasks_blocked()
            with pytest.raises(UnavailableError, match="3 calls"):
                await peer.call("echo", {})
        assert await peer.call("echo", {}) == {}


@in_virtual_time
async def test_duplicate_id_is_refused_and_call_continues() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), in_a_task(echo, 5)):
        await ours.send_all(line(id=2, do="echo", x=1) + line(id=2, do="echo", x=2))
        [refusal] = await received(ours)
        assert refusal["error"]["class"] == "RemoteProtocol"
        await trio.sleep(5)
        assert await received(ours) == [{"id": 2, "finished": True, "x": 1}]


# Bad connections.


@in_virtual_time
async def test_call_silent_peer_times_out_exactly() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(5):
                await peer.call("memory_sample", {})
        assert trio.current_time() == 5

        # The answer to call 2 comes after all, and call 4 told to give it up. Call 6
        # must take neither answer for its own.
        await theirs.send_all(answer(2, data="stale") + answer(4))
        await theirs.send_all(answer(6, data="fresh"))
        assert await peer.call("memory_sample", {}) == {"data": "fresh"}


@in_virtual_time
async def test_call_answer_in_small_parts_is_complete() -> None:
    ours, theirs = memory_stream_pair()

    async def trickle() -> None:
        # One byte a second.
        pump = partial(memory_stream_pump, theirs.send_stream, ours.receive_stream)
        while pump(max_bytes=1):  # noqa: ASYNC110 (a pace, not a wait for an event)
            await trio.sleep(1)

    theirs.send_stream.send_all_hook = trickle
    async with open_peer(ours, connecting()) as peer, trio.open_nursery() as nursery:
        data = answer(2, data="here")
        nursery.start_soon(theirs.send_all, data)
        assert await peer.call("thread_dump", {}) == {"data": "here"}
        assert trio.current_time() == len(data) - 1  # one byte a second


@pytest.mark.parametrize(
    ("last_bytes", "is_limit"),
    [
        pytest.param(b'{"id": 2, "fini', False, id="cut inside a line"),
        pytest.param(b"not json\n", False, id="garbage"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", False, id="a browser"),
        pytest.param(b"\xff\xfe\n", False, id="not UTF-8"),
        pytest.param(answer(2)[:-1], False, id="no newline"),
        pytest.param(b'["array"]\n', False, id="not an object"),
        pytest.param(line(id="2", finished=True), False, id="an id that is a string"),
        pytest.param(line(id=2, finished=1), False, id="a flag that is a number"),
        pytest.param(line(id=2, x=[[[[[[[[[]]]]]]]]]), True, id="too deep"),
        pytest.param(1001 * b"x", True, id="a line without end"),
        pytest.param(
            line(finished=True, failed=True, error={"class": "A", "message": "b"}),
            False,
            id="it hangs up with a reason",
        ),
    ],
)
@in_virtual_time
async def test_invalid_data_ends_the_connection(
    last_bytes: bytes, is_limit: bool
) -> None:
    """The call in flight fails, the peer gets an error, and the block continues."""
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting(line=1000, depth=8)) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_lost, peer)
            await wait_all_tasks_blocked()
            await theirs.send_all(last_bytes)
            await theirs.send_stream.aclose()
        await peer.closed.wait()
        assert isinstance(peer.error, RemoteProtocolError)
        assert isinstance(peer.error, LimitExceededError) == is_limit
        await expect_lost(peer)
        assert trio.current_time() == 0
    call, farewell = await received(theirs)
    assert call["do"] == "status"
    assert farewell["failed"]
    assert farewell["error"]["class"] == peer.error.wire_name
    assert "id" not in farewell


@in_virtual_time
async def test_valid_lines_before_invalid_data_count() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        await theirs.send_all(answer(2, data="good") + b"bad\n")
        assert await peer.call("x", {}) == {"data": "good"}
        await expect_lost(peer)


@in_virtual_time
async def test_end_of_file_fails_current_and_later_calls() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        async with trio.open_nursery() as nursery:
            for _i in range(3):
                nursery.start_soon(expect_lost, peer)
            await wait_all_tasks_blocked()
            await theirs.send_stream.aclose()
        await expect_lost(peer)
        assert peer.closed.is_set()
        assert peer.error is None
        assert trio.current_time() == 0


@in_virtual_time
async def test_broken_connection_while_sending_fails_the_call() -> None:
    ours, theirs = lockstep_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_lost, peer)
            await wait_all_tasks_blocked()
            await theirs.aclose()
        await peer.closed.wait()
        assert isinstance(peer.error, ConnectionLostError)
        await expect_lost(peer)


@in_virtual_time
async def test_close_ends_calls_in_flight_once() -> None:
    async with open_two(in_a_task(echo, 3600)) as (peer, _):
        ends: list[str] = []

        async def call() -> None:
            try:
                await peer.call("echo", {})
            except ConnectionLostError as exc:
                ends.append(str(exc))

        async with trio.open_nursery() as nursery:
            for _i in range(5):
                nursery.start_soon(call)
            await wait_all_tasks_blocked()
            peer.close()
            peer.close()  # twice is no harm
        assert ends == 5 * ["connection lost during 'echo'"]
        assert trio.current_time() == 0


@in_virtual_time
async def test_open_peer_closes_the_stream_at_the_end() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        pass
    assert peer.closed.is_set()
    assert await theirs.receive_some(1) == b""


@in_virtual_time
async def test_repeated_answer_counts_once() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        await theirs.send_all(3 * answer(2, data="here"))
        assert await peer.call("thread_dump", {}) == {"data": "here"}
        await wait_all_tasks_blocked()
        assert not peer.closed.is_set()


@in_virtual_time
async def test_half_closed_client_gets_its_answers() -> None:
    """Such as ``echo '{"id":2,"do":"status"}' | nc -N -U supervisor.ipc``."""
    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), echo) as peer:
        await ours.send_all(line(id=2, do="echo", x=1) + line(id=4, do="echo", x=2))
        await ours.send_stream.aclose()
        await peer.closed.wait()
        assert await received(ours) == [
            {"id": 2, "finished": True, "x": 1},
            {"id": 4, "finished": True, "x": 2},
        ]


# Cancellation.


@in_virtual_time
async def test_call_cancelled_is_cancelled_at_the_peer() -> None:
    ended: list[float] = []

    async def work() -> Fields:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())
        return {}

    async with open_two(lambda call: work() if call.do == "work" else {}) as (peer, _):
        with trio.move_on_after(3):
            await peer.call("work", {})
        assert await peer.call("ping", {}) == {}
        assert ended == [3]


@in_virtual_time
async def test_call_cancelled_is_answered_only_by_cancelled() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), in_a_task(echo, 3600)):
        await ours.send_all(line(id=2, do="echo") + line(id=4, do="cancel", call=2))
        answers = {each["id"]: each for each in await received(ours)}
        assert answers[4] == {"id": 4, "finished": True}
        assert answers[2]["error"]["class"] == "Cancelled"


@in_virtual_time
async def test_handler_failing_on_cancel_fails_only_its_call() -> None:
    """In a nursery with cancelled tasks, which raises a group of both kinds."""

    async def work() -> Fields:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("a bug in a clean-up")
        return {}

    ours, theirs = memory_stream_pair()
    async with open_peer(
        theirs, accepting(), lambda call: work() if call.do == "work" else {}
    ) as peer:
        await ours.send_all(line(id=2, do="work"))
        await wait_all_tasks_blocked()
        await ours.send_all(line(id=4, do="cancel", call=2) + line(id=6, do="ping"))
        answers = {each["id"]: each for each in await received(ours)}
        assert answers[2]["error"]["class"] == "OperationFailed"
        assert answers[6] == {"id": 6, "finished": True}
        assert not peer.closed.is_set()


@pytest.mark.parametrize("call", [None, "2", True, 2.0, [2]])
@in_virtual_time
async def test_cancel_of_invalid_id_is_refused(call: object) -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), echo):
        await ours.send_all(line(id=2, do="cancel", call=call))
        [refusal] = await received(ours)
        assert refusal["error"]["class"] == "BadRequest"


@in_virtual_time
async def test_cancel_after_the_answer_does_nothing() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), echo):
        await ours.send_all(line(id=2, do="echo") + line(id=4, do="cancel", call=2))
        assert await received(ours) == [
            {"id": 2, "finished": True},
            {"id": 4, "finished": True},
        ]


@in_virtual_time
async def test_call_in_cancelled_scope_sends_nothing() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting()) as peer:
        with trio.CancelScope() as scope:
            scope.cancel()
            await peer.call("x", {})
        assert scope.cancelled_caught
        assert await received(theirs) == []


@in_virtual_time
async def test_cancelled_calls_send_whole_lines() -> None:
    """Over a stream that is slow for each byte."""
    ours, theirs = lockstep_stream_pair()
    lines = b""

    async def read_slowly() -> None:
        nonlocal lines
        while data := await theirs.receive_some(7):
            lines += data
            await trio.sleep(0.125)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        async with open_peer(ours, connecting()) as peer:
            for number in range(20):
                with trio.move_on_after(number / 16):
                    await peer.call("x", {"number": number})
            await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    does = [json.loads(each)["do"] for each in lines.splitlines()]
    # The first one was over before it began, and nobody has heard of it.
    assert does == 19 * ["x", "cancel"]


@in_virtual_time
async def test_cancelled_calls_count_until_the_peer_answers() -> None:
    """Or a caller with short timeouts would heap work up at a peer that is slow.

    Each is two: the call itself, and the one that cancels it.
    """
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, connecting(calls=4)) as peer:
        for _i in range(2):
            with trio.move_on_after(1):
                await peer.call("slow", {})
        with pytest.raises(UnavailableError):
            await peer.call("slow", {})
        await theirs.send_all(answer(2) + answer(4) + answer(6) + answer(8))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await peer.call("slow", {})
        assert scope.cancelled_caught


# Peers that do not read.


@in_virtual_time
async def test_peer_that_does_not_read_is_disconnected() -> None:
    async def flood(call: IncomingCall) -> Fields:
        while True:
            call.progress({"data": 100 * "x"})
            await trio.sleep(1)

    def dispatch(call: IncomingCall) -> Answer:
        return flood(call) if call.do == "flood" else {}

    lazy, served_lazy = lockstep_stream_pair()
    async with (
        open_peer(served_lazy, accepting(queued=1000), dispatch) as peer,
        open_two(dispatch) as (other, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lazy.send_all, line(id=2, do="flood"))
        for second in range(8):
            assert not peer.closed.is_set()
            assert await other.call("ping", {}) == {}
            assert trio.current_time() == second
            await trio.sleep(1)
        await peer.closed.wait()
        assert isinstance(peer.error, LimitExceededError)
        assert "is not reading" in str(peer.error)
        assert await other.call("ping", {}) == {}
        assert trio.current_time() == 8


@in_virtual_time
async def test_queue_limit_counts_unsent_bytes_only() -> None:
    """The limit does not count bytes that were sent."""

    async with open_two(echo, queued=1000) as (peer, _):
        for _i in range(100):
            await peer.call("echo", {"data": 100 * "x"})


@in_virtual_time
async def test_call_of_peer_that_does_not_read_fails() -> None:
    ours, _theirs = lockstep_stream_pair()
    async with open_peer(ours, connecting(queued=1000)) as peer:
        async with trio.open_nursery() as nursery:
            for _i in range(3):
                nursery.start_soon(expect_lost_with, peer, {"data": 400 * "x"})
        assert isinstance(peer.error, LimitExceededError)


async def expect_lost_with(peer: Peer, fields: Fields) -> None:
    with pytest.raises(ConnectionLostError):
        await peer.call("x", fields)


@in_virtual_time
async def test_hang_up_on_peer_that_does_not_read_takes_one_second() -> None:
    ours, _theirs = lockstep_stream_pair()
    async with open_peer(ours, accepting()) as peer:
        peer.hang_up(LimitExceededError("no call within 10 s of connecting"))
        await peer.closed.wait()
    assert trio.current_time() == 1


@in_virtual_time
async def test_hang_up_keeps_first_reason() -> None:
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, accepting()) as peer:
        peer.hang_up(LimitExceededError("first"))
        peer.hang_up(LimitExceededError("second"))
        await peer.closed.wait()
        [farewell] = await received(theirs)
        assert farewell["error"]["message"] == "first"
        assert str(peer.error) == "first"


@in_virtual_time
async def test_answer_after_the_end_is_dropped() -> None:
    """Its caller is gone, so that no error is raised."""
    calls: list[IncomingCall] = []

    def dispatch(call: IncomingCall) -> Answer:
        calls.append(call)
        return in_a_task(echo, 3600)(call)

    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), dispatch) as peer:
        await ours.send_all(line(id=2, do="echo"))
        await wait_all_tasks_blocked()
        peer.close()
        await peer.closed.wait()
        with pytest.raises(ConnectionLostError):
            calls[0].progress({"x": 1})


@in_virtual_time
async def test_has_called_is_set_by_first_call() -> None:
    """So a peer that connects and sends nothing can be disconnected."""
    ours, theirs = memory_stream_pair()
    async with open_peer(theirs, accepting(), echo) as peer:
        await ours.send_all(b"\n" + line(id=9))  # a late answer to nothing
        await wait_all_tasks_blocked()
        assert not peer.has_called.is_set()
        await ours.send_all(line(id=2, do="x"))
        await peer.has_called.wait()


@in_virtual_time
async def test_calls_to_peer_that_stopped_reading_end_after_a_second() -> None:
    """Nothing can be sent; data of the peer is awaited for one second."""
    ours, theirs = memory_stream_pair()
    async with open_peer(ours, Session(is_connecting=True)) as peer:
        await theirs.receive_stream.aclose()
        with pytest.raises(ConnectionLostError):
            await peer.call("ping", {})
        await peer.closed.wait()
    assert trio.current_time() == 1
