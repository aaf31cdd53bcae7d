"""The agent: a real thread with a real loop, a supervisor made of a bare socket."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kits.serving import PATIENCE, short_directory
from tests.kits.worker import make_boot
from trio_supervisor.worker.agent import Agent
from trio_supervisor.worker.diagnostics import WorkerDiagnostics
from trio_supervisor.worker.duties import FORCE_AFTER
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.operations import Operations


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the sockets are."""
    with short_directory() as directory:
        yield directory


class Supervisor:
    """Accepts agents, and speaks to them by hand."""

    def __init__(self, directory: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(str(directory / "supervisor.ipc"))
        self._listener.listen()

    @contextmanager
    def accept(self) -> Iterator[Talk]:
        """Talk to the next agent for the length of the block."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rwb", buffering=0) as file:
            yield Talk(file)

    def shrink(self) -> None:
        """Have a backlog that is soon full."""
        self._listener.listen(0)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()


class Talk:
    """One connection."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def hear(self) -> dict[str, Any]:
        """Return the next line."""
        found: dict[str, Any] = json.loads(self._file.readline())
        return found

    def read(self) -> bytes:
        """Return the next line; empty: the agent has closed the connection."""
        line: bytes = self._file.readline()
        return line

    def say(self, **fields: object) -> None:
        """Send a line."""
        self.write(json.dumps(fields).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Send *data*."""
        self._file.write(data)

    def ask(self, **fields: object) -> dict[str, Any]:
        """Send a line and return the next one."""
        self.say(**fields)
        return self.hear()

    def welcome(self) -> dict[str, Any]:
        """Accept its registration; return the state that it sent."""
        call = self.hear()
        assert call["do"] == "register"
        self.say(id=call["id"], finished=True, connection_id="x")
        state: dict[str, Any] = call["state"]
        return state


@pytest.fixture
def supervisor(directory: Path) -> Iterator[Supervisor]:
    """A supervisor that agents connect to."""
    supervisor = Supervisor(directory)
    yield supervisor
    supervisor.close()


class Running:
    """An agent that runs, and what it said to the runtime: whether it was forced."""

    def __init__(self, directory: Path, lifeline: int, **settings: Any) -> None:
        self.state: dict[str, Any] = {"counter": 1}
        self.stops: queue.Queue[bool] = queue.Queue()
        looking = WorkerDiagnostics("web.3")
        self.agent = Agent(
            make_boot(directory, **{"stop_timeout": 1000.0, **settings}),
            lifeline,
            lambda: self.state,
            self.stops.put,
            Operations(looking, Handlers(), lambda: None).dispatch,
            looking.look,
        )


@contextmanager
def running(directory: Path, **settings: Any) -> Iterator[Running]:
    """Have an agent for the length of the block, with a lifeline of its own."""
    lifeline, end = os.pipe()
    running = Running(directory, lifeline, **settings)
    running.agent.start()
    try:
        yield running
    finally:
        running.agent.stop()
        os.close(lifeline)
        os.close(end)


def test_agent_registers_with_its_state(
    directory: Path, supervisor: Supervisor
) -> None:
    with running(directory), supervisor.accept() as talk:
        assert talk.welcome() == {
            "counter": 1,
            "process_id": os.getpid(),
            "name": "web.3",
            "service": "web",
            "index": 3,
            "incarnation": 2,
        }


def test_application_state_cannot_replace_identity(
    directory: Path, supervisor: Supervisor
) -> None:
    with running(directory) as worker:
        worker.state["process_id"] = 1
        worker.state["name"] = "root"
        with supervisor.accept() as talk:
            talk.hear()
        with supervisor.accept() as talk:
            state = talk.welcome()

    assert (state["process_id"], state["name"]) == (os.getpid(), "web.3")


def test_agent_reconnects_with_current_state(
    directory: Path, supervisor: Supervisor
) -> None:
    """After any number of disconnects, at any point of the session."""
    with running(directory) as worker:
        for counter in range(1, 5):
            worker.state["counter"] = counter
            with supervisor.accept() as talk:
                if counter % 2:
                    talk.welcome()
        with supervisor.accept() as talk:
            assert talk.welcome()["counter"] == 4


def test_agent_waits_for_missing_supervisor(directory: Path) -> None:
    with running(directory):
        late = Supervisor(directory)
        with late.accept() as talk:
            assert talk.welcome()["name"] == "web.3"
        late.close()


def test_agent_retries_after_refusal(directory: Path, supervisor: Supervisor) -> None:
    with running(directory), supervisor.accept() as talk:
        id_ = talk.hear()["id"]
        error = {"class": "NotPermitted", "message": "not you"}
        talk.say(id=id_, finished=True, failed=True, error=error)
        with supervisor.accept() as second:
            second.welcome()


def test_it_answers_on_each_connection_in_turn(
    directory: Path, supervisor: Supervisor
) -> None:
    """The loop that answers ends with the connection; the next call starts another."""
    with running(directory):
        for _ in range(3):
            with supervisor.accept() as talk:
                talk.welcome()
                assert talk.ask(id=3, do="ping") == {"id": 3, "finished": True}
                assert talk.ask(id=5, do="ping") == {"id": 5, "finished": True}


def test_it_answers_a_supervisor_that_calls_before_it_welcomes(
    directory: Path, supervisor: Supervisor
) -> None:
    with running(directory):
        with supervisor.accept() as talk:
            talk.hear()
            talk.say(id=3, do="ping")
            assert talk.read() == b""  # it connects again, with an event loop
        with supervisor.accept() as talk:
            register = talk.hear()
            assert talk.ask(id=3, do="ping") == {"id": 3, "finished": True}
            talk.say(id=register["id"], finished=True, connection_id="x")
            assert talk.ask(id=5, do="ping") == {"id": 5, "finished": True}


def test_call_in_the_same_packet_as_the_welcome_is_answered(
    directory: Path, supervisor: Supervisor
) -> None:
    with running(directory), supervisor.accept() as talk:
        id_ = talk.hear()["id"]
        lines = {"id": id_, "finished": True}, {"id": 3, "do": "ping"}
        talk.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        assert talk.hear() == {"id": 3, "finished": True}


def test_stop_request_is_heeded_in_the_queue_of_a_busy_supervisor(
    directory: Path, supervisor: Supervisor
) -> None:
    """The backlog is full, so connect(2) waits."""
    path = str(directory / "supervisor.ipc")
    supervisor.shrink()
    with ExitStack() as stack:
        for _ in range(100):
            queued = stack.enter_context(socket.socket(socket.AF_UNIX))
            queued.setblocking(False)
            try:
                queued.connect(path)
            except BlockingIOError:
                break
        worker = stack.enter_context(running(directory))
        worker.agent.request_stop()
        assert worker.stops.get(timeout=PATIENCE) is False


def test_it_answers_while_the_main_thread_is_busy(
    directory: Path, supervisor: Supervisor
) -> None:
    """With the main thread's stack; the agent's own thread is listed too."""
    answers: list[dict[str, Any]] = []
    is_busy, is_done = threading.Event(), threading.Event()

    def ask() -> None:
        with supervisor.accept() as talk:
            talk.welcome()
            is_busy.wait()
            answers.append(talk.ask(id=3, do="ping"))
            answers.append(talk.ask(id=5, do="thread_dump"))
            answers.append(talk.ask(id=7, do="dance"))
        is_done.set()

    interval = sys.getswitchinterval()
    try:
        with running(directory, switch_interval=1e-4):
            thread = threading.Thread(target=ask, name="the asker")
            thread.start()
            while not is_done.is_set():
                is_busy.set()
            thread.join()
            assert sys.getswitchinterval() == pytest.approx(1e-4)
    finally:
        sys.setswitchinterval(interval)

    ping, dump, dance = answers
    assert ping == {"id": 3, "finished": True}
    names = [thread["name"] for thread in dump["threads"]]
    assert names[0] == "MainThread"
    assert {"the asker", "trio_supervisor agent"} <= set(names)
    main = dump["threads"][0]
    assert (main["is_main"], main["is_daemon"]) == (True, False)
    own = [frame for frame in main["frames"] if frame["file"] == __file__]
    assert own[-1]["function"] == "test_it_answers_while_the_main_thread_is_busy"
    assert own[-1]["source"] in ("while not is_done.is_set():", "is_busy.set()")
    assert own[-1]["source"] in dump["data"]
    assert dance["failed"]
    assert dance["error"]["class"] == "UnknownOperation"


def test_stop_request_is_forwarded_then_forced(directory: Path) -> None:
    """Once each, for any number of requests."""
    with running(directory, stop_timeout=0.2) as worker:
        began = time.monotonic()
        for _ in range(100_000):
            worker.agent.request_stop()

        assert worker.stops.get(timeout=PATIENCE) is False
        assert worker.stops.get(timeout=PATIENCE) is True
        assert time.monotonic() - began >= 0.2 * FORCE_AFTER
    assert worker.stops.empty()


def test_lost_controller_is_stop_request(directory: Path) -> None:
    lifeline, end = os.pipe()
    worker = Running(directory, lifeline)
    worker.agent.start()
    try:
        os.close(end)
        assert worker.stops.get(timeout=PATIENCE) is False
    finally:
        worker.agent.stop()
        os.close(lifeline)


def test_signals_are_handled_in_main_thread(
    directory: Path, supervisor: Supervisor
) -> None:
    """Also if only the agent's thread could receive the signal."""
    handled: list[str] = []
    before = signal.signal(
        signal.SIGTERM, lambda *_: handled.append(threading.current_thread().name)
    )
    try:
        with running(directory), supervisor.accept() as talk:
            talk.welcome()
            masked = {}
            for task in os.listdir("/proc/self/task"):
                status = Path(f"/proc/self/task/{task}/status").read_text()
                bits = int(status.partition("SigBlk:")[2].split()[0], 16)
                masked[int(task)] = bool(bits >> (signal.SIGTERM - 1) & 1)
            assert masked.pop(os.getpid()) is False
            agents = [
                thread.native_id
                for thread in threading.enumerate()
                if thread.name == "trio_supervisor agent"
            ]
            assert [masked[native_id or 0] for native_id in agents] == [True]
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert handled == ["MainThread"]


def test_agent_leaks_no_thread_or_descriptor() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def live() -> None:
        with short_directory() as directory:
            supervisor = Supervisor(directory)
            with running(directory), supervisor.accept() as talk:
                talk.welcome()
            supervisor.close()

    live()
    before = descriptors()
    for _ in range(5):
        live()

    assert not [t for t in threading.enumerate() if "agent" in t.name]
    assert descriptors() - before <= 5  # of each, the end that is written to
