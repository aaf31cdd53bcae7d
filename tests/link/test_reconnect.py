"""Reconnecting to a lost peer, at exact virtual times."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_supervisor.errors import ConnectionLostError, NotPermittedError
from trio_supervisor.link.peer import open_peer
from trio_supervisor.link.reconnect import ReconnectPlan, keep_connected
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.session import Session

PLAN = ReconnectPlan(backoff=Backoff(base=1, cap=4, stable_after=10), connect_timeout=2)


class Longest(random.Random):
    """Always draws the longest delay."""

    def random(self) -> float:
        return 1.0


async def connect_to_nothing() -> trio.abc.Stream:
    raise ConnectionRefusedError


async def no_session(stream: trio.abc.Stream) -> None:
    """End immediately."""


class Line:
    """Opens streams, and records which were closed."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._last: trio.abc.ReceiveStream | None = None

    async def connect(self) -> trio.abc.Stream:
        if self._last is not None:
            with trio.fail_after(0.5):  # the one before is closed by now
                assert await self._last.receive_some(1) == b""
        self.times.append(trio.current_time())
        ours, self._last = memory_stream_pair()
        return ours


@in_virtual_time
async def test_reconnect_backs_off_from_peer_that_closes_immediately() -> None:
    tries: list[float] = []

    async def connect() -> trio.abc.Stream:
        tries.append(trio.current_time())
        if len(tries) == 4:
            await trio.sleep_forever()  # a connect that hangs
        if len(tries) == 3:
            raise ConnectionRefusedError
        ours, theirs = memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 400 Bad Request\n")
        return ours

    async def session(stream: trio.abc.Stream) -> None:
        async with open_peer(stream, Session(is_connecting=True)) as peer:
            await peer.closed.wait()

    with trio.move_on_after(18):
        await keep_connected(connect, session, PLAN, Longest())
    # Waits of 0, 1, 2, 4, 4 seconds; the hanging connect costs 2 more.
    assert tries == [0, 0, 1, 3, 9, 13, 17]


@in_virtual_time
async def test_reconnect_after_long_session_is_immediate() -> None:
    """While the supervisor is replaced, its socket stays open: a connect succeeds."""
    line, lengths = Line(), iter([0.0, 0.0, 0.0, 10.0, 0.0, 9.5, 0.0])

    async def session(stream: trio.abc.Stream) -> None:
        await trio.sleep(next(lengths, 3600))

    with trio.move_on_after(100):
        await keep_connected(line.connect, session, PLAN, Longest())
    # 10 s are a good while, and reset the waits; 9.5 s are not.
    assert line.times == [0, 0, 1, 3, 13, 14, 25.5, 29.5]


@in_virtual_time
async def test_session_is_not_limited_by_connect_timeout() -> None:
    line = Line()

    async def session(stream: trio.abc.Stream) -> None:
        await trio.sleep(1000)

    with trio.move_on_after(999):
        await keep_connected(line.connect, session, PLAN, Longest())
    assert line.times == [0]


@in_virtual_time
async def test_reconnect_delays_are_random() -> None:
    """So that a hundred workers do not reconnect at the same time."""
    tries: list[float] = []

    async def connect() -> trio.abc.Stream:
        tries.append(trio.current_time())
        raise ConnectionRefusedError

    drawn, rng = random.Random(7), random.Random(7)
    with trio.move_on_after(60):
        await keep_connected(connect, no_session, PLAN, rng)
    now, expected = 0.0, []
    for attempt in range(len(tries)):
        expected.append(now)
        limit = 0.0 if attempt == 0 else min(4.0, 2.0 ** (attempt - 1))
        now += drawn.random() * limit
    assert tries == pytest.approx(expected)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ConnectionLostError("lost"), id="of ours"),
        pytest.param(NotPermittedError("refused"), id="a refusal"),
        pytest.param(OSError("reset"), id="of the system"),
        pytest.param(trio.BrokenResourceError("broken"), id="of the stream"),
        pytest.param(
            ExceptionGroup("", [ConnectionLostError("lost"), OSError("reset")]),
            id="in a nursery",
        ),
    ],
)
@in_virtual_time
async def test_reconnect_after_lost_session(error: Exception) -> None:
    line = Line()

    async def session(stream: trio.abc.Stream) -> None:
        if len(line.times) < 3:
            raise error
        await trio.sleep_forever()

    with trio.move_on_after(100):
        await keep_connected(line.connect, session, PLAN, Longest())
    assert line.times == [0, 0, 1]


@pytest.mark.parametrize(
    "fail_in", ["session", "connect"], ids=["while connected", "while connecting"]
)
@in_virtual_time
async def test_reconnect_propagates_other_errors(fail_in: str) -> None:
    line = Line()

    async def connect() -> trio.abc.Stream:
        if fail_in == "connect":
            raise ZeroDivisionError
        return await line.connect()

    async def session(stream: trio.abc.Stream) -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(
        ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True
    ):
        await keep_connected(connect, session, PLAN, Longest())
    assert trio.current_time() == 0


@pytest.mark.parametrize("seconds", [0.5, 100])
@in_virtual_time
async def test_keep_connected_cancelled_closes_the_stream(seconds: float) -> None:
    ours, theirs = memory_stream_pair()

    async def connect() -> trio.abc.Stream:
        return ours

    async def session(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(seconds) as scope:
        await keep_connected(connect, session, PLAN, Longest())
    assert scope.cancelled_caught
    assert await theirs.receive_some(1) == b""
    assert trio.current_time() == seconds


@pytest.mark.parametrize(
    "change", [lambda: ReconnectPlan(connect_timeout=0), lambda: Backoff(base=0)]
)
def test_reconnect_plan_without_delay_is_refused(change: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        change()


@in_virtual_time
async def test_reconnect_without_server_never_spins() -> None:
    """With the default plan, for an hour, and the shortest delays."""
    tries = 0

    async def connect() -> trio.abc.Stream:
        nonlocal tries
        tries += 1
        raise ConnectionRefusedError

    plan = ReconnectPlan()
    with trio.move_on_after(3600):
        await keep_connected(connect, no_session, plan, random.Random(0))
    assert tries < 3 * 3600 / plan.backoff.cap  # the mean wait is half of the longest
