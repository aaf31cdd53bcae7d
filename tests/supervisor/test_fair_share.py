"""One client cannot delay the others by more than milliseconds."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.kits.wire_strategies import json_values
from tests.supervisor.test_server import (
    House,
    echo,
    expect,
    open_house,
    register,
)
from trio_supervisor.link.peer import Answer, IncomingCall
from trio_supervisor.supervisor import fair_share
from trio_supervisor.supervisor.fair_share import FairShare, Turns
from trio_supervisor.supervisor.registry import MAX_STATES, MAX_UNMANAGED
from trio_supervisor.wire.limits import DEFAULT_LIMITS, MAX_STATE
from trio_supervisor.wire.protocol import OPERATIONS

MIB = 1024 * 1024
# Processor time, not the clock's: it is the same on a machine with load, nearly.
LONGEST_STEP = 0.05


@define(eq=False)
class Steps(trio.abc.Instrument):
    """How much processor time a step of any task took [s]."""

    longest: float = 0.0
    _began: float = field(default=0.0, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, time.thread_time() - self._began)


def run_quickly(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *scene*: no step of it may be a long one, at the best of three tries."""
    longest = []
    # What the tests before this one have left is not the supervisor's to visit.
    gc.collect()
    gc.freeze()
    try:
        for _ in range(3):
            steps = Steps()
            trio.run(scene, instruments=[steps])
            longest.append(steps.longest)
            if longest[-1] < LONGEST_STEP:
                return
    finally:
        gc.unfreeze()
    pytest.fail(f"the loop was blocked for {min(longest):.3f} s of processor time")


@asynccontextmanager
async def open_scene() -> AsyncIterator[tuple[House, trio.abc.Stream]]:
    """Have a server, a victim that is answered at the end, and an attacker."""
    async with (
        open_house() as house,
        house.control(echo),
        house.connect(100, echo) as worker,
        house.connect(8) as victim,
    ):
        await register(worker, 100, name="web.0")
        await victim.call("ping", {})
        attacker = house.connect_stream(9)
        try:
            yield house, attacker
            with trio.fail_after(60):
                await victim.call("ping", {})
                await victim.call(
                    "forward", {"name": "web.0", "operation": {"do": "x"}}
                )
        finally:
            await trio.aclose_forcefully(attacker)


async def send(attacker: trio.abc.Stream, data: bytes) -> None:
    """Send all of it, and read nothing."""
    with suppress(trio.BrokenResourceError):
        await attacker.send_all(data)


def attack(data: bytes) -> None:
    """Send *data* to a server; wait for no answer."""

    async def scene() -> None:
        async with open_scene() as (_, attacker):
            with trio.move_on_after(20):
                await send(attacker, data)
                await wait_all_tasks_blocked()

    run_quickly(scene)


def of_size(size: int, item: str) -> str:
    """An array of *item* of about that size [bytes]."""
    return f"[{','.join([item] * (size // (len(item) + 1)))}]"


def call(do: str, name: str, value: str) -> bytes:
    """The line of a call with one argument."""
    return f'{{"id":2,"do":"{do}","{name}":{value}}}\n'.encode()


SIZES = [200 * 1024, 2 * MIB]
HOSTILE: dict[str, Callable[[int], bytes]] = {
    "numbers as names": lambda n: call("restart", "names", of_size(n, "1")),
    "arrays as names": lambda n: call("restart", "names", of_size(n, "[]")),
    "objects as names": lambda n: call("stop", "names", of_size(n, '{"a":1}')),
    "names of nobody": lambda n: call("stop", "names", of_size(n, '"nobody"')),
    "different names": lambda n: call(
        "stop", "names", json.dumps([f"no-{i}" for i in range(n // 10)])
    ),
    "pids as names": lambda n: call(
        "stop", "names", json.dumps([f"pid-{i}" for i in range(n // 12)])
    ),
    "one long name": lambda n: call("start", "names", f'["{"x" * n}"]'),
    "counts of strings": lambda n: call(
        "scale", "counts", json.dumps({f"s{i}": "x" for i in range(n // 12)})
    ),
    "counts": lambda n: call(
        "scale", "counts", json.dumps({f"s{i}": i for i in range(n // 12)})
    ),
    "deep arrays": lambda n: call("scale", "counts", "[" * (n // 2) + "]" * (n // 2)),
    "arrays 60 deep": lambda n: call("x", "a", of_size(n, "[" * 58 + "]" * 58)),
    "an unknown operation": lambda n: call("x" * n, "a", "1"),
    "a long number": lambda n: call("logs", "tail", "1" * n),
    "a long fraction": lambda n: call("logs", "tail", "0." + "1" * n),
    "the same key": lambda n: b'{"id":2,"do":"ping"' + b',"a":1' * (n // 6) + b"}\n",
    "escapes": lambda n: call("x", "a", '"' + "\\u0001" * (n // 6) + '"'),
    "quotes": lambda n: call("x", "a", '"' + '\\"[' * (n // 3) + '"'),
    "an array as a text": lambda n: call("restart", "reason", of_size(n, '["a"]')),
    "a text": lambda n: call("restart", "reason", '"' + "x" * n + '"'),
    "a state": lambda n: call("register", "state", '{"a":' + of_size(n, "[]") + "}"),
    "an operation": lambda n: call(
        "forward", "operation", '{"do":"x","a":' + of_size(n, "[]") + "}"
    ),
    "no JSON": lambda n: b"x" * n + b"\n",
    "no newline": lambda n: b'{"id":2,"do":"x","a":"' + b"x" * n,
    "newlines": lambda n: b"\n" * n,
    "pings": lambda n: b'{"id":2,"do":"ping"}\n' * (n // 20),
    "status": lambda n: b'{"id":2,"do":"status"}\n' * (n // 200),
    "refusals": lambda n: b'{"id":2,"do":"restart","names":[1]}\n' * (n // 36),
    "restarts": lambda n: b"".join(
        b'{"id":%d,"do":"restart","names":["web"]}\n' % i for i in range(2, n // 40, 2)
    ),
    "forwards": lambda n: b"".join(
        b'{"id":%d,"do":"forward","name":"web.0","operation":{"do":"x"}}\n' % i
        for i in range(2, n // 60, 2)
    ),
    "answers to nobody": lambda n: b'{"id":3,"finished":true}\n' * (n // 25),
    "cancels": lambda n: b'{"id":2,"do":"cancel","call":2}\n' * (n // 32),
}


@pytest.mark.parametrize("size", SIZES, ids=["short", "long"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_any_input_never_blocks_event_loop(kind: str, size: int) -> None:
    """The supervisor and a worker answer the victim after it."""
    attack(HOSTILE[kind](size))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    do=st.sampled_from(sorted(OPERATIONS)),
    name=st.sampled_from(
        ["names", "state", "operation", "counts", "kind", "reason", "timeout", "tail"]
    ),
    item=json_values,
    repeats=st.sampled_from([1, 100, 10_000, 300_000]),
)
@example(do="restart", name="names", item=1, repeats=1_000_000)
def test_any_json_never_blocks_event_loop(
    do: str, name: str, item: Any, repeats: int
) -> None:
    """Any value, any number of times, for any argument of any operation."""
    text = json.dumps(item)
    size = min(2 * MIB, repeats * (len(text) + 1))
    attack(call(do, name, of_size(size, text)))


@settings(max_examples=30, deadline=None)
@given(piece=st.binary(min_size=1, max_size=40), repeats=st.integers(1, 20_000))
def test_any_bytes_never_block_event_loop(piece: bytes, repeats: int) -> None:
    attack(piece * repeats)


async def test_refusal_names_only_first_problem() -> None:
    """One of a hundred thousand problems is reported."""
    async with open_house() as house, house.control(echo), house.connect() as client:
        with expect("BadRequest", "expected str, got 1 @ $.names[0]") as caught:
            await client.call("restart", {"names": [1] * 9_000})

    assert len(str(caught.value)) < 200


async def test_overlong_call_fails_alone() -> None:
    """This connection and all others stay open."""
    async with open_house() as house, house.control(echo):
        stream = house.connect_stream(9)
        await stream.send_all(HOSTILE["numbers as names"](2 * MIB))
        await stream.send_all(b'{"id":4,"do":"ping"}\n')
        data = b""
        while data.count(b"\n") < 2:
            data += await stream.receive_some()

    refused, answered = map(json.loads, data.splitlines())
    assert refused["error"] == {
        "class": "LimitExceeded",
        "message": "the call of 'restart' is longer than 262144 bytes",
    }
    assert answered == {"id": 4, "finished": True}


# What a worker answers.


async def test_large_answer_is_forwarded_unparsed() -> None:
    """With the caller's own id; its fields are as the worker wrote them."""
    tree = {"rows": [[1, "[", {"id": 9}]] * 20_000}

    async def dump(call: IncomingCall) -> dict[str, Any]:
        call.progress({**tree, "part": 1})
        return tree

    progress: list[Any] = []
    async with (
        open_house() as house,
        house.control(echo),
        house.connect(100, lambda call: dump(call)) as worker,
        house.connect() as client,
    ):
        await register(worker, 100, name="web.0")
        await client.call("ping", {})
        answer = await client.call(
            "forward", {"name": "web.0", "operation": {"do": "dump"}}, progress.append
        )

    assert answer == tree
    assert progress == [{**tree, "part": 1}]


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        pytest.param(b'"a":[%s0}', "not JSON", id="unbalanced"),
        pytest.param(b'"a":[%s0]},{"b":1}', "not JSON", id="two objects"),
        pytest.param(b'"a":[%s0],"b":"}', "not JSON", id="within a string"),
    ],
)
async def test_malformed_large_answer_fails_only_its_call(
    rest: bytes, problem: str
) -> None:
    """The caller's other calls over the same connection continue."""
    async with (
        open_house() as house,
        house.control(echo),
        house.connect() as client,
    ):
        stream = house.connect_stream(100)
        await stream.send_all(call("register", "state", '{"name":"web.0"}'))
        await stream.receive_some()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with expect("RemoteProtocol", problem):
                    await client.call(
                        "forward", {"name": "web.0", "operation": {"do": "x"}}
                    )

            nursery.start_soon(ask)
            asked = json.loads(await stream.receive_some())
            head = b'{"id":%d,"finished":true,' % asked["id"]
            await stream.send_all(head + rest % (b"0," * 150_000) + b"\n")
        await client.call("ping", {})


async def test_large_answer_keeps_its_first_id() -> None:
    """A later id in the same line does not count."""
    async with (
        open_house() as house,
        house.control(echo),
        house.connect() as client,
    ):
        stream = house.connect_stream(100)
        await stream.send_all(call("register", "state", '{"name":"web.0"}'))
        await stream.receive_some()
        answers: dict[str, Any] = {}

        async def ask(word: str) -> None:
            operation = {"do": word}
            answers[word] = await client.call(
                "forward", {"name": "web.0", "operation": operation}
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, "b")
            await wait_all_tasks_blocked()
            asked = {
                (each := json.loads(line))["do"]: each["id"]
                for line in (await stream.receive_some()).splitlines()
            }
            while len(asked) < 2:
                each = json.loads(await stream.receive_some())
                asked[each["do"]] = each["id"]
            padding = b'"x":"%s"' % (b"x" * 300_000)
            for word in "ab":
                await stream.send_all(
                    b'{"id":%d,"finished":true,"for":"%s",%s,"id":2,"id":4,"id":6}\n'
                    % (asked[word], word.encode(), padding)
                )

    assert {word: answer["for"] for word, answer in answers.items()} == {
        "a": "a",
        "b": "b",
    }


# What strangers say of themselves.


async def test_too_large_state_is_refused() -> None:
    async with open_house() as house, house.connect(9) as stranger:
        with expect("LimitExceeded", f"at most {MAX_STATE} are accepted"):
            await register(stranger, 9, data="x" * MAX_STATE)
        with expect("LimitExceeded", "at most 200 are accepted"):
            await register(stranger, 9, name="x" * 201)
        with expect("LimitExceeded", "more than 256 arrays and objects"):
            await register(stranger, 9, data=[[]] * 256)
        await register(stranger, 9, name="x" * 200, data="x" * (MAX_STATE - 1000))


async def test_status_fits_line_for_any_stranger_state() -> None:
    """States of the controller's workers are shown; of strangers only the names."""
    async with (
        open_house() as house,
        house.control(echo),
        house.connect(100) as worker,
        house.connect(8) as client,
        trio.open_nursery() as nursery,
    ):

        async def be(number: int) -> None:
            async with house.connect(1000 + number) as peer:
                state = {"name": f"s{number}", "data": "x" * (MAX_STATE - 1000)}
                await register(peer, 1000 + number, **state)
                await trio.sleep_forever()

        for number in range(100):
            nursery.start_soon(be, number)
        await wait_all_tasks_blocked()
        await register(worker, 100, name="web.0", mood="good")
        report = await client.call("status", {})
        nursery.cancel_scope.cancel()

    states = {c["state"]["name"]: c["state"] for c in report["connections"]}
    assert len(states) == 101
    assert states["web.0"]["mood"] == "good"
    assert states["s7"]["process_id"] == 1007
    assert "bytes omitted" in states["s7"]["note"]


async def test_strangers_are_limited() -> None:
    """By number and by size of their states; a worker can still connect."""
    async with open_house() as house, house.control(echo), house.connect(9) as stranger:
        registry = house.server.registry
        registry.check_room(MAX_STATES)
        registry.connections.update(
            {str(number): None for number in range(MAX_UNMANAGED + 2)}  # type: ignore[misc]
        )
        with expect("LimitExceeded", "registered; at most"):
            await register(stranger, 9)
        registry.connections.clear()


# Who shares what.


async def test_streams_per_process_are_limited() -> None:
    """No client can use all calls that the controller allows."""

    async def follow(call: IncomingCall) -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    def control(call: IncomingCall) -> Answer:
        return follow(call) if call.do == "events" else {}

    async with (
        open_house() as house,
        house.control(control),
        house.connect(9) as greedy,
        house.connect(9) as greedy_too,
        house.connect(8) as other,
        trio.open_nursery() as nursery,
    ):
        for _ in range(fair_share.MAX_STREAMS):
            nursery.start_soon(greedy.call, "events", {"follow": True})
        await wait_all_tasks_blocked()
        with expect("LimitExceeded", "process 9 already has 32 streams in progress"):
            await greedy_too.call("events", {})
        nursery.start_soon(other.call, "events", {"follow": True})
        await other.call("restart", {})
        nursery.cancel_scope.cancel()


async def test_calls_per_process_are_limited() -> None:
    """Those that wait for the controller; others are still answered."""

    async def wait() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    def control(call: IncomingCall) -> Answer:
        return wait() if call.do == "restart" else {}

    async with (
        open_house() as house,
        house.control(control),
        house.connect(9) as greedy,
        house.connect(9) as greedy_too,
        house.connect(8) as other,
        trio.open_nursery() as nursery,
    ):
        for _ in range(fair_share.MAX_WAITING):
            nursery.start_soon(greedy.call, "restart", {})
        await wait_all_tasks_blocked()
        with expect("LimitExceeded", "process 9 already has 256 calls in progress"):
            await greedy_too.call("restart", {})
        await greedy_too.call("ping", {})
        await other.call("scale", {"counts": {"web": 2}})
        nursery.cancel_scope.cancel()


async def test_connections_per_process_are_limited() -> None:
    async with open_house() as house:
        streams = [
            house.connect_stream(9) for _ in range(fair_share.MAX_CONNECTIONS + 1)
        ]
        refusals: list[Any] = []

        async def read(stream: trio.abc.Stream) -> None:
            refusals.append(json.loads(await stream.receive_some()))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(read, stream)
        async with house.connect(8) as other:
            await other.call("ping", {})

    (refusal,) = refusals
    assert refusal["error"]["class"] == "LimitExceeded"
    assert "already has 256 connections" in refusal["error"]["message"]


@define(eq=False)
class Clock:
    """Time that passes when the test says so [s]."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def work(turns: Turns, clock: Clock, name: str, done: list[str]) -> None:
    """Work for a slice and a bit, if it is our turn."""
    await turns.begin()
    clock.now += 0.004
    done.append(name)
    turns.end()


async def test_light_caller_precedes_heavy_callers() -> None:
    """Heavy callers take turns, one at a time."""
    clock = Clock()
    share = FairShare(clock)
    done: list[str] = []
    with share.open(1) as first, share.open(2) as second, share.open(3) as modest:
        for turns in (first, second):
            turns.account.charge(1.0, clock.now)
        async with trio.open_nursery() as nursery:
            await share.queue.acquire()
            nursery.start_soon(work, first, clock, "first", done)
            await wait_all_tasks_blocked()
            nursery.start_soon(work, second, clock, "second", done)
            await wait_all_tasks_blocked()
            nursery.start_soon(work, modest, clock, "modest", done)
            await wait_all_tasks_blocked()
            assert done == ["modest"]
            share.queue.release()

    assert done == ["modest", "first", "second"]


async def test_debt_expires() -> None:
    clock = Clock()
    with FairShare(clock).open(1) as turns:
        turns.account.charge(1.0, 0.0)
        assert turns.account.is_spent(1.9)
        assert not turns.account.is_spent(2.0)


def test_connection_memory_is_bounded() -> None:
    """Lines that are no answers, and answers not yet read."""
    assert DEFAULT_LIMITS.call == 256 * 1024


async def test_single_heavy_caller_does_not_queue() -> None:
    """Queueing would cost it one loop iteration each time."""
    clock = Clock()
    share = FairShare(clock)
    with share.open(1) as alone, share.open(2) as rival:
        alone.account.charge(1.0, clock.now)
        rival.account.charge(1.0, clock.now)
        await alone.begin()
        assert not share.queue.locked()
        alone.end()
        await rival.begin()
        assert share.queue.locked()
        rival.end()
