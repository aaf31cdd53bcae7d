"""Test web servers under load while their workers are replaced.

``python -m tests.e2e.test_http_load http_trio 20 50`` runs it for longer, with 20
reloads and 50 killed workers, and prints the counts.

The guarantees that are checked:

- No connection is refused: the sockets listen all the time.
- No connection is reset by a reload, or by SIGTERM to a worker: it answers what it has
  accepted, and asks clients with kept-alive connections to open another one. A
  connection without a request for a second is closed.
- SIGKILL loses the connections that the killed process had accepted, and no others.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field, frozen

from tests.kits.serving import PACKAGE_DIRECTORY, PATIENCE, Serving, open_serving

pytestmark = pytest.mark.slow

EXAMPLES = PACKAGE_DIRECTORY / "examples"
WORKERS = ("web.0", "web.1")
# One request of this many takes 0.2 s, so that one is always in progress.
SLOW_EVERY = 8
# The number of answers between two reloads or kills: all workers, the newest
# too, have connections then.
BETWEEN = 40
# Servers wait for a second before they hang up on a client that keeps its connection
# and does not ask [s].
LINGER = 0.9


@frozen
class Lost:
    """A connection that ended before its answer arrived."""

    port: int
    """The client's own port."""
    idle: float
    """How long, at most, no request had been sent over it by then [s]."""
    problem: str


@define(eq=False)
class Client:
    """A client that sends a request as soon as the previous one is answered."""

    address: tuple[str, int]
    keeps_connections: bool
    is_done: threading.Event
    answered: threading.Semaphore
    """Released for each answer."""
    counts: Counter[str] = field(factory=Counter)
    lost: list[Lost] = field(factory=list)
    longest: float = 0.0
    """Time of the slowest answer, from before its connection was opened [s]."""

    def run(self) -> None:
        """Send requests until `is_done`."""
        paths = itertools.cycle(["/slow", *["/"] * (SLOW_EVERY - 1)])
        while not self.is_done.is_set():
            began = time.monotonic()
            try:
                connection = socket.create_connection(self.address, timeout=PATIENCE)
            except ConnectionRefusedError:
                self.counts["refused"] += 1
                continue
            self.counts["connections"] += 1
            with connection:
                self._use(connection, paths, began)

    def _use(
        self, connection: socket.socket, paths: Iterator[str], began: float
    ) -> None:
        port, last = connection.getsockname()[1], began
        while True:
            asked, sent = time.monotonic(), math.inf
            try:
                _send(connection, next(paths))
                sent = time.monotonic()
                is_last = _receive(connection)
            except (OSError, EOFError) as exc:
                idle = min(sent, time.monotonic()) - last
                self.lost.append(Lost(port, idle, repr(exc)))
                return
            last = asked  # the answer may have arrived before it was read
            self.counts["answers"] += 1
            self.answered.release()
            self.longest = max(self.longest, time.monotonic() - began)
            began = time.monotonic()
            if is_last:
                self.counts["told to leave"] += 1
            if is_last or not self.keeps_connections or self.is_done.is_set():
                return


def _send(connection: socket.socket, path: str) -> None:
    """Send one request."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())


def _receive(connection: socket.socket) -> bool:
    """Read the answer; return whether the server then closes the connection."""
    answer = b""
    while not answer.endswith(b"\n") or b"pid " not in answer:
        data = connection.recv(4096)
        if not data:
            raise EOFError(f"hung up after {answer!r}")
        answer += data
    head, _, _ = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return b"connection: close" in head.lower()


@contextmanager
def clients_of(address: tuple[str, int], each: int) -> Iterator[list[Client]]:
    """Run clients of both kinds while the block is open."""
    is_done = threading.Event()
    answered = threading.Semaphore(0)
    kinds = [True, False] * each
    clients = [Client(address, kind, is_done, answered) for kind in kinds]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        is_done.set()
        for thread in threads:
            thread.join()


@define(eq=False)
class Report:
    """The actions that were taken, and their result."""

    counts: Counter[str]
    lost: list[Lost]
    """Lost connections, without those that a killed process had accepted."""
    longest: float

    @property
    def broken(self) -> list[Lost]:
        """Lost connections that no client has to expect.

        A server may close an idle connection; a client that sends a request at that
        moment has to send it again (RFC 9112, 9.3.1).
        """
        return [it for it in self.lost if it.idle < LINGER]


def disturb(example: str, *, reloads: int, kills: int, clients: int = 4) -> Report:
    """Reload and kill workers of an example under load; return what happened."""
    directory = EXAMPLES / example
    source = (directory / "service.py").read_text(encoding="utf-8")
    # The example's own directory too: its application is a separate module.
    path = os.pathsep.join([str(PACKAGE_DIRECTORY), str(directory)])
    return disturb_service(source, path, reloads=reloads, kills=kills, clients=clients)


def disturb_service(
    source: str,
    path: str,
    *,
    reloads: int,
    kills: int,
    clients: int = 4,
    files: Mapping[str, str] | None = None,
) -> Report:
    """Reload and kill workers of a service file under load; return what happened.

    Args:
        source: Declares a service ``web`` with two workers, whose status is their URL.
        path: Its PYTHONPATH.
        files: Other files in its directory, by name.
    """
    environment = {"PORT": "0", "PYTHONPATH": path}
    accepted: set[int] = set()
    counts: Counter[str] = Counter()
    with open_serving(source, environment=environment, files=files) as serving:
        address = _address(serving)
        with clients_of(address, clients) as asking:
            for action in _actions(reloads, kills):
                _wait_answers(asking, BETWEEN)
                counts[action] += 1
                if action == "reload":
                    _reload(serving)
                else:
                    name = WORKERS[counts[action] % len(WORKERS)]
                    accepted |= _kill(serving, name, action, address[1])
            _wait_answers(asking, BETWEEN)
        assert serving.terminate() == 0
    lost = []
    for client in asking:
        counts += client.counts
        for it in client.lost:
            if it.port in accepted:
                accepted.discard(it.port)
                counts["lost with a killed process"] += 1
            else:
                lost.append(it)
    return Report(counts, lost, max(client.longest for client in asking))


def _actions(reloads: int, kills: int) -> Iterator[str]:
    """Yield the actions in turns; every second kill is a SIGKILL."""
    done = 0
    for index in range(kills):
        if index * reloads >= done * kills and done < reloads:
            done += 1
            yield "reload"
        yield "SIGKILL" if index % 2 else "SIGTERM"
    yield from ["reload"] * (reloads - done)


def _wait_answers(clients: Sequence[Client], count: int) -> None:
    answered = clients[0].answered
    while answered.acquire(blocking=False):
        pass  # events from before
    for _ in range(count):
        assert answered.acquire(timeout=PATIENCE), "clients get no more answers"


def _address(serving: Serving) -> tuple[str, int]:
    worker = serving.worker(WORKERS[0])
    host, _, port = worker["status"].strip("/").removeprefix("http://").partition(":")
    return host, int(port)


def _reload(serving: Serving) -> None:
    since = serving.mark()
    serving.process.send_signal(signal.SIGHUP)
    serving.wait_event(since=since, event="reloaded")


def _kill(serving: Serving, name: str, signal_name: str, port: int) -> set[int]:
    """Kill a worker; return the connections lost with it, once it is replaced."""
    process_id = serving.select(event="ready", name=name)[-1]["process_id"]
    since = serving.mark()
    accepted: set[int] = set()
    if signal_name == "SIGKILL":
        # It accepts no connection from here on, so its connections can be read.
        os.kill(process_id, signal.SIGSTOP)
        _wait_suspended(process_id)
        accepted = _clients_of_process(process_id, port)
    os.kill(process_id, signal.Signals[signal_name])
    serving.wait_event(since=since, event="ready", name=name)
    return accepted


def _wait_suspended(process_id: int) -> None:
    end = time.monotonic() + PATIENCE
    while not all(
        path.read_text().rpartition(")")[2].split()[0] == "T"
        for path in Path(f"/proc/{process_id}/task").glob("*/stat")
    ):
        assert time.monotonic() < end, f"process {process_id} was not suspended"


def _clients_of_process(process_id: int, port: int) -> set[int]:
    """Return the peers of its connections to *port*: proc_net_tcp(5)."""
    inodes = set()
    for path in Path(f"/proc/{process_id}/fd").iterdir():
        kind, _, rest = os.readlink(path).partition(":[")
        if kind == "socket":
            inodes.add(rest.removesuffix("]"))
    found = set()
    for line in Path(f"/proc/{process_id}/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *fields = line.split()
        if fields[6] in inodes and int(local.partition(":")[2], 16) == port:
            found.add(int(remote.partition(":")[2], 16))
    return found - {0}


@pytest.mark.parametrize(
    ("example", "reloads", "kills"),
    [("http_trio", 3, 6), ("http_asgi", 1, 2)],
    ids=["hypercorn on trio", "uvicorn on asyncio"],
)
def test_http_load_loses_no_request_but_to_sigkill(
    example: str, reloads: int, kills: int
) -> None:
    """No connection is refused; only those of a killed process are cut off."""
    pytest.importorskip({"http_trio": "hypercorn", "http_asgi": "uvicorn"}[example])
    report = disturb(example, reloads=reloads, kills=kills)
    assert report.counts["reload"] == reloads
    assert report.counts["SIGTERM"] + report.counts["SIGKILL"] == kills
    assert report.counts["answers"] > 100
    assert report.counts["refused"] == 0
    assert report.broken == []


if __name__ == "__main__":
    which, *numbers = sys.argv[1:] or ["http_trio"]
    how_often = [int(number) for number in numbers] or [20, 50]
    began_at = time.monotonic()
    outcome = disturb(which, reloads=how_often[0], kills=how_often[1])
    seconds = time.monotonic() - began_at
    print(f"{which}, {seconds:.0f} s:")
    for what, count in outcome.counts.items():
        print(f"  {count:>7} {what}")
    print(f"  {outcome.counts['refused']:>7} refused")
    print(f"  {len(outcome.broken):>7} cut off by anything but SIGKILL")
    idle = len(outcome.lost) - len(outcome.broken)
    print(f"  {idle:>7} closed when nothing was asked for long")
    for it in outcome.lost:
        print(f"          {it}")
    print(f"  {outcome.longest:.2f} s was the longest time until an answer")
    sys.exit(bool(outcome.broken or outcome.counts["refused"]))
