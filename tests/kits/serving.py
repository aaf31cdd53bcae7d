"""Run a real ``serve`` for a test, and observe its log, its processes and its files.

Nothing in here sleeps: it waits for lines of the log, answers and exits of processes,
each with a deadline.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import trio_supervisor
from trio_supervisor.cli.connection import (
    Deadline,
    SupervisorConnection,
    connect_patiently,
)
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    NoSupervisorError,
    UnavailableError,
)
from trio_supervisor.process.cleanup import guardian as guardian_module

PACKAGE_DIRECTORY = Path(trio_supervisor.__file__).parents[1]
PATIENCE = 60.0
"""Limit for anything whose duration is not under test, on a loaded machine [s]."""
_LATE = 5.0
"""How late the thread that writes the log may be [s]."""
COMMAND = (sys.executable, "-m", "trio_supervisor")
_MARK = "TRIO_SUPERVISOR_TEST"

ISSUE_SERVICE = """
import trio
from trio_supervisor import Application, MemoryMonitor, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    while True:
        await trio.sleep(1)

application = Application(
    services=[Service("worker", work, count=4)],
    monitors=[MemoryMonitor(interval=10, maximum_size_limit=500 * 1024 * 1024)],
)
"""


def environment_of_children(mark: str = "") -> dict[str, str]:
    """Return an environment that finds our package, without variables of ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRIO_SUPERVISOR")}
    return {**kept, "PYTHONPATH": str(PACKAGE_DIRECTORY), _MARK: mark}


@contextmanager
def short_directory() -> Iterator[Path]:
    """Make a temporary directory with a path short enough for a Unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_cli(
    *words: str, directory: Path, timeout: float = PATIENCE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end in *directory*, without a terminal."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=directory,
        env={**environment_of_children(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_gone(process_ids: Sequence[int], timeout: float = PATIENCE) -> None:
    """Wait until all of *process_ids* have exited."""
    end = time.monotonic() + timeout
    for process_id in process_ids:
        try:
            descriptor = os.pidfd_open(process_id)
        except ProcessLookupError:
            continue
        try:
            left = max(0.0, end - time.monotonic())
            has_exited, _, _ = select.select([descriptor], [], [], left)
            assert has_exited, f"{describe(process_id)} still runs after {timeout} s"
        finally:
            os.close(descriptor)


def describe(process_id: int) -> str:
    """Return the pid and command line of a process, for the message of a failure."""
    try:
        words = Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return f"process {process_id} ({b' '.join(words).decode()})"


def find_guardian(serving: Serving) -> int | None:
    """Return the pid of the guardian process, or None if there is none now."""
    for process_id in serving.process_ids():
        if guardian_module.__name__ in describe(process_id):
            return process_id
    return None


def guardian_of(serving: Serving) -> int:
    """Return the pid of the guardian process, which must exist."""
    guardian = find_guardian(serving)
    assert guardian is not None, "there is no guardian"
    return guardian


def is_alive(process_id: int) -> bool:
    """Return whether the process runs, and is not a zombie."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def count_descriptors(process_id: int) -> int:
    """Return the number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{process_id}/fd"))


def _logged(answer: Mapping[str, Any]) -> Iterator[object]:
    """Yield the events that the log has as well: not the repeats of a crash loop."""
    for entry in answer.get("entries", ()):
        if not entry.get("is_repeat"):
            yield entry


class RawPeer:
    """A connection to the socket that sends and receives raw lines."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, line: str) -> None:
        """Send *line* unchanged."""
        self._socket.sendall(line.encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """Return the next line; an empty object at the end of the stream."""
        line = self._file.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        return found

    def ask(self, line: str) -> dict[str, Any]:
        """Send *line*, and return the next one."""
        self.send(line)
        return self.receive()


class Serving:
    """A running ``serve``; made by `open_serving`."""

    def __init__(
        self, directory: Path, process: subprocess.Popen[str], mark: str
    ) -> None:
        self.directory = directory
        self.process = process
        self.socket = directory / "supervisor.ipc"
        self.events: list[dict[str, Any]] = []
        """JSON lines of the log, each with its own time as ``at`` [s since 1970]."""
        self.lines: list[str] = []
        """All lines of standard error, including those that are not JSON."""
        self._mark = mark
        self._news = threading.Condition()
        self._is_over = False
        self._count = 0
        """Number of events, without lines printed by workers."""
        assert process.stderr is not None
        self._log = process.stderr.fileno()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        while True:
            select.select([self._log], [], [])
            # Under the lock: a line is either in the pipe or in `lines`.
            with self._news:
                if not (data := os.read(self._log, 65536)):
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take_line(line.decode("utf-8", "backslashreplace"))
                self._news.notify_all()
        with self._news:
            if rest:
                self._take_line(rest.decode("utf-8", "backslashreplace"))
            self._is_over = True
            self._news.notify_all()

    def _take_line(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("{"):
            event = json.loads(line)
            # The time of the event: it may be read much later.
            at = datetime.fromisoformat(event["time"]).timestamp()
            self.events.append({**event, "at": at})
            self._count += "event" in event

    def _catch_up(self) -> None:
        """Wait until all lines logged so far have been read."""
        unread = array("i", [0])
        with self._news:
            while not self._is_over:
                fcntl.ioctl(self._log, termios.FIONREAD, unread)
                if not unread[0]:
                    return
                assert self._news.wait(PATIENCE), "the log is not being read"

    @property
    def text(self) -> str:
        """All of standard error so far."""
        return "\n".join(self.lines)

    def settle(self) -> None:
        """Wait until all events that happened before this call have been read.

        The controller writes its log in a thread, and waits for it only briefly before
        it answers a call. So ask for the number of events as well.
        """
        end = time.monotonic() + PATIENCE
        happened: list[object] = []
        while self.process.poll() is None:
            assert time.monotonic() < end, "the controller does not respond"
            happened.clear()
            try:
                with SupervisorConnection(
                    str(self.socket), Deadline(PATIENCE)
                ) as connection:
                    connection.call(
                        "events",
                        {},
                        lambda answer: happened.extend(_logged(answer)),
                    )
                    connection.call("scale", {"counts": {}})
                break
            except (NoSupervisorError, ConnectionLostError):
                continue  # a new supervisor is being started, or everything is stopping
            except (CallFailedError, UnavailableError) as exc:
                if "the controller is" not in str(exc) or "shutting down" in str(exc):
                    break  # it has answered, although with a refusal
        else:
            self._reader.join(PATIENCE)
        with self._news:
            self._news.wait_for(
                lambda: self._is_over or self._count >= len(happened), _LATE
            )
        self._catch_up()

    def mark(self) -> int:
        """Return the number of the next event, for `wait_event`."""
        self.settle()
        return len(self.events)

    def select(self, since: int = 0, **fields: object) -> list[dict[str, Any]]:
        """Return the events from number *since* on that have these *fields*.

        All events until now are considered.
        """
        self.settle()
        return self._select(since, fields)

    def _select(self, since: int, fields: Mapping[str, object]) -> list[dict[str, Any]]:
        return [
            event
            for event in self.events[since:]
            if all(event.get(key) == value for key, value in fields.items())
        ]

    def wait_event(self, *, since: int = 0, **fields: object) -> dict[str, Any]:
        """Wait for an event that has these *fields*; return the first."""
        return self.wait_events(1, since=since, **fields)[0]

    def wait_events(
        self, count: int, *, since: int = 0, **fields: object
    ) -> list[dict[str, Any]]:
        """Wait for *count* events that have these *fields*."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while len(found := self._select(since, fields)) < count:
                left = end - time.monotonic()
                what = f"{count} events with {fields}, in\n{self.text}"
                assert left > 0, f"timed out waiting for {what}"
                assert not self._is_over, f"exited without {what}"
                self._news.wait(left)
        return found

    def wait_line(self, part: str, *, since: int = 0) -> str:
        """Wait for a line on standard error that contains *part*."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while not (found := [line for line in self.lines[since:] if part in line]):
                left = end - time.monotonic()
                assert left > 0, f"timed out waiting for {part!r} in\n{self.text}"
                assert not self._is_over, f"exited without {part!r} in\n{self.text}"
                self._news.wait(left)
        return found[0]

    def call(self, do: str, **arguments: object) -> dict[str, Any]:
        """Make one call to the supervisor."""
        with SupervisorConnection(str(self.socket), Deadline(PATIENCE)) as connection:
            return connection.call(do, arguments)

    def when_ready(self) -> dict[str, Any]:
        """Return the status once all workers are ready and connected."""
        deadline = Deadline(PATIENCE)
        while True:
            with connect_patiently(str(self.socket), deadline) as connection:
                try:
                    return connection.call("workers", {"wait_ready": True})
                except ConnectionLostError:
                    continue

    def worker(self, name: str) -> dict[str, Any]:
        """Return the status of one worker."""
        workers = self.call("workers")["workers"]
        found: dict[str, Any]
        # During a reload there may be two.
        found = max(
            (worker for worker in workers if worker["name"] == name),
            key=lambda worker: int(worker["generation"]),
        )
        return found

    def wait_worker(self, name: str, **fields: object) -> dict[str, Any]:
        """Poll the status of one worker until it has these *fields*.

        The supervisor's status is a moment behind the log.
        """
        end = time.monotonic() + PATIENCE
        while True:
            worker = self.worker(name)
            if all(worker[key] == value for key, value in fields.items()):
                return worker
            assert time.monotonic() < end, f"timed out waiting for {fields}: {worker}"

    def cli(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a verb in the directory of the socket."""
        return run_cli(
            *words, directory=self.directory, timeout=PATIENCE, **environment
        )

    def peer(self) -> RawPeer:
        """Open a connection for raw lines."""
        return RawPeer(self.socket)

    def kill(self, name: str) -> int:
        """Send SIGKILL to the worker's process, or the supervisor's; return its pid."""
        report = self.call("workers")
        by_name = {worker["name"]: worker for worker in report["workers"]}
        by_name["supervisor"] = report["supervisor"]
        process_id: int = by_name[name]["process_id"]
        os.kill(process_id, signal.SIGKILL)
        return process_id

    def wait_exit(self, timeout: float = PATIENCE) -> int:
        """Wait for the controller's exit and the end of its log; return its code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def terminate(self) -> int:
        """Stop everything by SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def process_ids(self) -> list[int]:
        """Return the pids of this ``serve`` and of all its descendants."""
        needle = f"{_MARK}={self._mark}".encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if needle in variables and is_alive(int(name)):
                found.append(int(name))
        return found

    def wait_nothing_left(self, timeout: float = PATIENCE) -> None:
        """Wait until no process of this ``serve`` is left."""
        end = time.monotonic() + timeout
        while left := self.process_ids():
            wait_gone(left, max(0.0, end - time.monotonic()))

    def files(self) -> set[str]:
        """Return the names of files left beside the service file and in TMPDIR."""
        own = {"service.py", "tmp", "__pycache__", "supervisor.state"}
        beside = {path.name for path in self.directory.iterdir()} - own
        return beside | {path.name for path in (self.directory / "tmp").iterdir()}

    def edit(self, source: str) -> None:
        """Replace the service file."""
        self.put("service.py", source)

    def put(self, name: str, source: str) -> None:
        """Write a file beside the service file, atomically."""
        new = self.directory / "tmp" / "new"
        new.write_text(source, encoding="utf-8")
        new.replace(self.directory / name)

    def printed(self, name: str, message: str) -> dict[str, Any]:
        """Wait for a line that *name* prints to its standard error."""
        return self.wait_event(name=name, message=message, stream="stderr")

    def until(self, is_true: Callable[[], object], what: str) -> None:
        """Poll *is_true* until it is: nothing signals the change."""
        end = time.monotonic() + PATIENCE
        while not is_true():
            assert self.process.poll() is None, f"exited without {what}"
            assert time.monotonic() < end, f"timed out waiting for {what}"

    def pids(self, *services: str) -> dict[str, int]:
        """Return the pids of all workers, or of those of *services*, by name."""
        return {
            worker["name"]: worker["process_id"]
            for worker in self.call("workers")["workers"]
            if not services or worker["service"] in services
        }

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.wait_exit()
            self.wait_nothing_left()
        finally:
            for process_id in self.process_ids():
                os.kill(process_id, signal.SIGKILL)
            self.process.wait()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextmanager
def open_serving(
    source: str = ISSUE_SERVICE,
    *,
    target: str = "service.py",
    is_ready: bool = True,
    umask: int = -1,
    environment: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
    prefix: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    stdout: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> Iterator[Serving]:
    """Serve *source* in a directory of its own; afterwards no process may be left.

    Args:
        target: Name of the file with *source*.
        is_ready: Whether to wait until all workers are ready and connected.
        words: More options of ``serve``.
        prefix: A program with its arguments that runs ``serve``.
        files: Other files in its directory, by name.
        stdout: Its standard output.
        pass_fds: Descriptors that it inherits.
    """
    mark = str(uuid.uuid4())
    with short_directory() as directory:
        (directory / target).write_text(source, encoding="utf-8")
        (directory / "tmp").mkdir()
        for name, text in (files or {}).items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text, encoding="utf-8")
        options = ["--log-format", "json", *words]
        process = subprocess.Popen(
            [*prefix, *COMMAND, "serve", target, *options],
            cwd=directory,
            env={
                **environment_of_children(mark),
                "TMPDIR": str(directory / "tmp"),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            umask=umask,
            pass_fds=pass_fds,
        )
        serving = Serving(directory, process, mark)
        try:
            if is_ready:
                serving.wait_event(event="all_ready")
                serving.when_ready()
            yield serving
        finally:
            serving._end()
