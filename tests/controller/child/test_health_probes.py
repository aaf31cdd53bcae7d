"""Probes of commands, with real sockets and processes of this machine."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field

from trio_supervisor.application import Command, Probe
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.child.exit_messages import Fault
from trio_supervisor.controller.child.health_probes import make_prober
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.child import Process
from trio_supervisor.testing import FakeProcess

ENVIRONMENT = dict(os.environ)
QUICK: dict[str, Any] = {"interval": 0.01, "timeout": 5.0, "failures": 2}


@define(eq=False)
class ProbedChild(Child):
    """A child that notes what its probes say of it."""

    findings: list[object] = field(factory=list, kw_only=True)
    news: trio.Event = field(factory=trio.Event, kw_only=True)

    def set_probe_readiness(self, is_ready: bool) -> None:
        self._note("ready" if is_ready else "not ready")

    def fail_probe(self, cause: Cause, fault: Fault) -> None:
        self._note(cause)

    def _note(self, finding: object) -> None:
        self.findings.append(finding)
        news, self.news = self.news, trio.Event()
        news.set()

    async def wait_findings(self, count: int) -> list[object]:
        with trio.fail_after(30):
            while len(self.findings) < count:
                await self.news.wait()
        return self.findings[:count]


async def spawn(incarnation: int) -> Process:
    raise AssertionError("nothing is started here")


class Nobody:
    """Is told nothing."""

    def on_change(self, child: Child) -> None: ...
    def on_process(self, child: Child, process: Process, is_running: bool) -> None: ...
    def on_event(self, event: object) -> None: ...


@asynccontextmanager
async def probed(**probes: Any) -> AsyncIterator[ProbedChild]:
    """Have a command probed for the length of the block."""
    command = Command("db", ["db"], **probes)
    prober = make_prober(command, ENVIRONMENT)
    assert prober is not None
    plan = ChildPlan(name="db.0", service="db")
    patient = ProbedChild(plan, spawn, Nobody(), random.Random(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prober, patient, FakeProcess())
        yield patient
        nursery.cancel_scope.cancel()


Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Serve for the length of the block; yield the port."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def saying(answers: Sequence[bytes], heard: list[bytes]) -> Handler:
    """Return what gives one answer after the other, the last one for ever."""
    left = list(answers)

    async def handle(stream: trio.SocketStream) -> None:
        heard.append(await stream.receive_some(1000))
        await stream.send_all(left.pop(0) if len(left) > 1 else left[0])

    return handle


def http(port: int, **settings: float) -> Probe:
    return Probe.http(f"http://127.0.0.1:{port}/ready?x=1", **(QUICK | settings))


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\n\r\n"
BUSY = b"HTTP/1.0 503 Busy\r\n\r\n"


async def test_a_command_without_probes_is_not_probed() -> None:
    assert make_prober(Command("db", ["db"]), ENVIRONMENT) is None


async def test_readiness_comes_and_goes_with_the_answers() -> None:
    """Two failures in a row count; 200 to 399 is good."""
    heard: list[bytes] = []
    answers = [BUSY, OK, BUSY, OK, BUSY, BUSY, MOVED]
    async with (
        serving(saying(answers, heard)) as port,
        probed(readiness=http(port)) as patient,
    ):
        assert await patient.wait_findings(3) == ["ready", "not ready", "ready"]
        assert heard[0].startswith(b"GET /ready?x=1 HTTP/1.1\r\n")
        assert f"\r\nHost: 127.0.0.1:{port}\r\n".encode() in heard[0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 2000 Many\r\n", id="four digits"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1\r\n", id="no status"),
        pytest.param(b"x" * 5000, id="no line"),
    ],
)
async def test_what_is_no_good_answer_is_a_failure(answer: bytes) -> None:
    async with (
        serving(saying([answer], [])) as port,
        probed(readiness=http(port)) as patient,
    ):
        assert await patient.wait_findings(1) == ["not ready"]


async def test_a_liveness_probe_that_fails_says_so_once() -> None:
    """It was alive to begin with; what needs no readiness probe is ready at once."""
    async with (
        serving(saying([OK, BUSY], [])) as port,
        probed(liveness=http(port)) as patient,
    ):
        assert await patient.wait_findings(2) == ["ready", Cause.UNHEALTHY]


async def test_one_that_hangs_is_not_waited_for() -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with (
        serving(hang) as port,
        probed(liveness=http(port, timeout=0.05)) as patient,
    ):
        assert await patient.wait_findings(2) == ["ready", Cause.UNHEALTHY]


async def test_a_startup_probe_comes_first() -> None:
    """Only after it the others are asked at all."""
    heard: list[bytes] = []
    async with (
        serving(saying([BUSY, OK], heard)) as port,
        serving(saying([OK], heard)) as other,
        probed(startup=http(port, failures=100), readiness=http(other)) as patient,
    ):
        assert await patient.wait_findings(1) == ["ready"]
        first = [f"127.0.0.1:{port}".encode() in request for request in heard[:3]]
        assert first == [True, True, False]


async def test_one_that_does_not_start_is_told_of() -> None:
    async with (
        serving(saying([BUSY], [])) as port,
        probed(startup=http(port), readiness=http(port)) as patient,
    ):
        assert await patient.wait_findings(1) == [Cause.STARTUP_TIMEOUT]


async def test_a_connection_is_all_that_a_tcp_probe_asks_for() -> None:
    async def nothing(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)

    async with serving(nothing) as port:
        probe = Probe.tcp(f"127.0.0.1:{port}", **QUICK)
        async with probed(readiness=probe) as patient:
            assert await patient.wait_findings(1) == ["ready"]


async def test_a_port_where_nobody_listens_is_a_failure() -> None:
    async with serving(saying([OK], [])) as port:
        pass
    probe = Probe.tcp(f"127.0.0.1:{port}", **QUICK)
    async with probed(readiness=probe, liveness=http(port)) as patient:
        assert set(await patient.wait_findings(2)) == {"not ready", Cause.UNHEALTHY}


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        ([sys.executable, "-S", "-c", "pass"], "ready"),
        ([sys.executable, "-S", "-c", "raise SystemExit(3)"], "not ready"),
        (["/no/such/program"], "not ready"),
    ],
    ids=["succeeds", "fails", "not there"],
)
async def test_a_command_is_asked_by_its_exit_code(
    arguments: list[str], finding: str
) -> None:
    probe = Probe.command(arguments, **QUICK)
    async with probed(readiness=probe) as patient:
        assert await patient.wait_findings(1) == [finding]


async def test_a_command_that_hangs_is_killed() -> None:
    """Nothing of it is left when the next one is run."""
    hang = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]
    probe = Probe.command(hang, **(QUICK | {"timeout": 0.1}))
    async with probed(readiness=probe) as patient:
        assert await patient.wait_findings(1) == ["not ready"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)


async def test_a_quick_start_is_noticed_long_before_the_interval() -> None:
    heard: list[bytes] = []
    answers = [*[BUSY] * 3, OK]
    async with (
        serving(saying(answers, heard)) as port,
        probed(startup=http(port, interval=1000.0, failures=2)) as patient,
    ):
        # The failures in between do not count.
        assert await patient.wait_findings(1) == ["ready"]
    assert len(heard) == 4
