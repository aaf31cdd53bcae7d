"""Test that healthy workers keep running when system calls of ours fail.

The failures are faults that `tests.kits.faults` injects into one process, and real
limits. CI tries a part of the combinations; ``nox -s failing_calls`` tries all.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kits.places import KITS
from tests.kits.serving import PACKAGE_DIRECTORY, PATIENCE, Serving, open_serving
from trio_supervisor.cli.connection import Deadline, SupervisorConnection
from trio_supervisor.errors import SupervisorError

SERVICE = """
import trio
from trio_supervisor import Application, Backoff, Command, Probe, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await trio.sleep_forever()

application = Application(
    services=[
        Service("web", work, count=2, intensity=0),
        Command(
            "probed",
            ["sleep", "1000"],
            intensity=0,
            liveness=Probe.command(["true"], interval=0.1, failures=2),
        ),
        Service("victim", work, backoff=Backoff(stable_after=0.0)),
    ],
)
"""
FAULTS = KITS / "faults"
SHORTAGES = ("EMFILE", "EAGAIN", "ENOMEM", "ENFILE", "ENOSPC")
# This is not a shortage: a worker that is started during it has failed to start.
OTHERS = ("EPERM", "EPIPE", "EINTR")
STARTING = (
    "pipe",
    "dup",
    "memfd_create",
    "pidfd_open",
    "fork_exec",
    "socketpair",
    "start_new_thread",
    "open",
    "listdir",
    "sendmsg",
)
# Calls that a supervisor and an agent make while they answer.
TALKING = (
    *("read", "write", "send", "recv", "open", "listdir"),
    *("start_new_thread", "dup", "pipe"),
)
IS_LONG = os.environ.get("FAILING_CALLS") == "all"


def combinations(functions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return functions and errors: each function at least once, or all on request."""
    errors = (*SHORTAGES, *OTHERS)
    if IS_LONG:
        return [(function, error) for function in functions for error in errors]
    found = [(f, errors[i % len(errors)]) for i, f in enumerate(functions)]
    return [*found, (functions[-1], "EPIPE")]


class Faults:
    """Faults that make calls of one process fail."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def fail(self, process_id: int, function: str, error: str) -> Iterator[None]:
        """Make *function* fail in the process while the block is open."""
        link = self._directory / f"{process_id}.{function}"
        link.symlink_to(str(getattr(errno, error)))
        try:
            yield
        finally:
            link.unlink()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Serving, Faults]]:
    """Serve once for all tests."""
    directory = tmp_path_factory.mktemp("faults")
    environment = {
        "TEST_FAULTS": str(directory),
        "PYTHONPATH": os.pathsep.join(map(str, (FAULTS, PACKAGE_DIRECTORY))),
    }
    with open_serving(SERVICE, environment=environment) as serving:
        yield serving, Faults(directory)


@contextmanager
def checked(serving: Serving) -> Iterator[None]:
    """Check that every healthy worker has kept its process and its connection."""
    before = serving.pids("web", "probed")
    since = len(serving.lines)
    yield
    serving.when_ready()
    assert serving.pids("web", "probed") == before
    told = "\n".join(serving.lines[since:])
    assert "Traceback" not in told, told
    assert serving.process.poll() is None


def kill_victim(serving: Serving) -> int:
    """Kill the victim and wait for its event; return the number of the next event."""
    since = serving.mark()
    os.kill(serving.pids("victim")["victim.0"], signal.SIGKILL)
    serving.wait_event(since=since, event="exited", name="victim.0")
    return since


def kill_victim_by_log(serving: Serving) -> None:
    """Kill the victim by the pid in the log, because the supervisor may not answer."""
    started = [
        event["process_id"]
        for event in list(serving.events)
        if event.get("event") == "started" and event["name"] == "victim.0"
    ]
    with suppress(ProcessLookupError):
        os.kill(started[-1], signal.SIGKILL)


@pytest.mark.parametrize(("function", "error"), combinations(STARTING))
def test_controller_survives_failing_call(
    running: tuple[Serving, Faults], function: str, error: str
) -> None:
    serving, faults = running
    with checked(serving):
        with faults.fail(serving.process.pid, function, error):
            since = kill_victim(serving)
        serving.wait_event(since=since, event="ready", name="victim.0")
        told = serving.select(since, event="shortage")
        assert len(told) <= 1
        if told:
            assert serving.select(since, event="shortage_over")


@pytest.mark.parametrize(
    ("function", "error"), combinations(("fork", "pipe", "socketpair"))
)
def test_fork_server_survives_failing_call(
    running: tuple[Serving, Faults], function: str, error: str
) -> None:
    """Two preforked children exist; later workers are started by exec."""
    serving, faults = running
    with checked(serving):
        with faults.fail(fork_server_of(serving), function, error):
            for _ in range(3):
                since = kill_victim(serving)
                serving.wait_event(since=since, event="ready", name="victim.0")
        since = kill_victim(serving)
        serving.wait_event(since=since, event="ready", name="victim.0")


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM"])
def test_supervisor_survives_failing_accept(
    running: tuple[Serving, Faults], error: str
) -> None:
    """Clients wait; one log line says why, and one says that it is over."""
    serving, faults = running
    supervisor = serving.call("workers")["supervisor"]["process_id"]
    with checked(serving):
        since = len(serving.lines)
        with faults.fail(supervisor, "accept", error), serving.peer() as early:
            serving.wait_line("cannot accept connections", since=since)
            with serving.peer() as late:
                early.send('{"id":1,"do":"ping"}')
                late.send('{"id":1,"do":"ping"}')
        assert serving.call("ping") is not None
        serving.wait_line("accepting connections again", since=since)
        lines = serving.lines[since:]
        assert sum("cannot accept connections" in line for line in lines) == 1
        assert serving.call("workers")["supervisor"]["process_id"] == supervisor


@pytest.mark.parametrize(
    ("function", "error"), combinations((*TALKING, "getsockopt", "pidfd_open"))
)
def test_supervisor_or_successor_survives_failing_call(
    running: tuple[Serving, Faults], function: str, error: str
) -> None:
    """A client calls and a worker is replaced; both may have to retry."""
    serving, faults = running
    supervisor = serving.call("workers")["supervisor"]["process_id"]
    with checked(serving):
        with faults.fail(supervisor, function, error):
            kill_victim_by_log(serving)
            with suppress(OSError), serving.peer() as peer:
                peer.send('{"id":2,"do":"ping"}')
        assert serving.call("ping") is not None
        serving.wait_worker("victim.0", state="ready", connected=True)


@pytest.mark.parametrize(
    ("function", "error"), combinations((*TALKING, "connect", "socketpair"))
)
def test_agent_survives_failing_call(
    running: tuple[Serving, Faults], function: str, error: str
) -> None:
    """The call fails while the agent answers; it answers or reconnects afterwards."""
    serving, faults = running
    worker = serving.pids("web")["web.0"]
    ask = {"name": "web.0", "operation": {"do": "thread_dump"}}
    with checked(serving):
        with faults.fail(worker, function, error), suppress(SupervisorError):
            serving.call("forward", **ask, timeout=2)
        serving.until(lambda: agent_answers(serving, ask), "an answer of the agent")


@pytest.mark.parametrize("error", ["ENOMEM", "EAGAIN", "EPERM"])
def test_agent_survives_failing_connect(
    running: tuple[Serving, Faults], error: str
) -> None:
    """It connects to the next supervisor as soon as it can."""
    serving, faults = running
    worker = serving.pids("web")["web.0"]
    with checked(serving), faults.fail(worker, "connect", error):
        since = serving.mark()
        serving.kill("supervisor")
        serving.wait_event(since=since, event="supervisor_connected")


@pytest.mark.parametrize(
    ("limit", "value", "name"),
    [
        (resource.RLIMIT_NOFILE, 8, "RLIMIT_NOFILE=8"),
        (resource.RLIMIT_FSIZE, 0, "RLIMIT_FSIZE=0"),
    ],
)
def test_controller_survives_real_limit(
    running: tuple[Serving, Faults], limit: int, value: int, name: str
) -> None:
    """A probe that cannot be run ends no worker either."""
    serving, _ = running
    controller = serving.process.pid
    with checked(serving):
        soft, hard = resource.prlimit(controller, limit)
        resource.prlimit(controller, limit, (value, hard))
        try:
            since = kill_victim(serving)
            told = serving.wait_event(since=since, event="shortage")
            assert name in told["problem"]
            if limit == resource.RLIMIT_NOFILE:
                serving.wait_line("not counted as a failure")
                # Several probes, which would be too many failures in a row.
                serving.until(lambda: attempts(serving) > 5, "starts that fail")
        finally:
            resource.prlimit(controller, limit, (soft, hard))
        serving.wait_event(since=since, event="shortage_over")
        serving.wait_event(since=since, event="ready", name="victim.0")
        assert len(serving.select(since, event="shortage")) == 1


def agent_answers(serving: Serving, ask: dict[str, Any]) -> bool:
    """Return whether the agent answers; it may be reconnecting."""
    with suppress(SupervisorError):
        return bool(serving.call("forward", **ask)["threads"])
    return False


def attempts(serving: Serving) -> int:
    """Return how many starts have failed since the last successful one."""
    told: list[dict[str, Any]] = []
    with SupervisorConnection(str(serving.socket), Deadline(PATIENCE)) as connection:
        connection.call("events", {}, lambda part: told.extend(part.get("entries", ())))
    count = 0
    for event in told:
        kind = event["event"]
        count = 0 if kind == "started" else count + (kind == "not_started")
    return count


def fork_server_of(serving: Serving) -> int:
    """Return the pid of the fork server; preforked children are newer."""
    title = b"trio_supervisor: fork server"
    return min(
        process_id
        for process_id in serving.process_ids()
        if Path(f"/proc/{process_id}/cmdline").read_bytes().startswith(title)
    )
