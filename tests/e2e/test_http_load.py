"""Web servers under load while their workers are replaced: who is turned away?

``python -m tests.e2e.test_http_load http_trio 20 50`` does it for longer, with so many
reloads and so many killed workers, and prints what was counted.

What is promised, and looked at here:

- No connection is refused: the sockets listen all the time.
- No connection is reset by a reload, or by SIGTERM to a worker: it answers what it has
  accepted, and tells clients that keep their connection to open another one. One that
  does not ask for a second is hung up on.
- By SIGKILL those are lost that the killed process had accepted, and no others.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field, frozen

from tests.kits.serving import PACKAGE_DIRECTORY, PATIENCE, Serving, open_serving

pytestmark = pytest.mark.slow

EXAMPLES = PACKAGE_DIRECTORY / "examples"
WORKERS = ("web.0", "web.1")
# One request in so many takes 0.2 s, so that there is always one under way.
SLOW_EVERY = 8
# From one reload or kill to the next there are so many answers: all workers, the newest
# too, have connections then.
BETWEEN = 40
# Servers wait for a second before they hang up on a client that keeps its connection
# and does not ask [s].
LINGER = 0.9


@frozen
class Lost:
    """A connection that ended before the answer came."""

    port: int
    """The client's own."""
    idle: float
    """How long, at most, nothing had been asked over it by then [s]."""
    problem: str


@define(eq=False)
class Client:
    """Asks all the time, each request when the answer before is there."""

    address: tuple[str, int]
    keeps_connections: bool
    is_done: threading.Event
    answered: threading.Semaphore
    """Released for each answer."""
    counts: Counter[str] = field(factory=Counter)
    lost: list[Lost] = field(factory=list)
    longest: float = 0.0
    """What the slowest answer took, from before its connection was opened [s]."""

    def run(self) -> None:
        """Ask until `is_done`."""
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
            last = asked  # the answer may have lain there before it was read
            self.counts["answers"] += 1
            self.answered.release()
            self.longest = max(self.longest, time.monotonic() - began)
            began = time.monotonic()
            if is_last:
                self.counts["told to leave"] += 1
            if is_last or not self.keeps_connections or self.is_done.is_set():
                return


def _send(connection: socket.socket, path: str) -> None:
    """Make one request."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())


def _receive(connection: socket.socket) -> bool:
    """Take its answer; return whether the server closes the connection after it."""
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
    """Have so many clients of both kinds ask for the length of the block."""
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
    """What was done, and what came of it."""

    counts: Counter[str]
    lost: list[Lost]
    """All but those that a killed process had accepted."""
    longest: float

    @property
    def broken(self) -> list[Lost]:
        """Those that no client has to put up with.

        A server may close a connection over which nothing was asked for long; a client
        that asks just then has to ask again (RFC 9112, 9.3.1).
        """
        return [it for it in self.lost if it.idle < LINGER]


def disturb(example: str, *, reloads: int, kills: int, clients: int = 4) -> Report:
    """Reload and kill workers of an example while clients ask; return what happened."""
    directory = EXAMPLES / example
    source = (directory / "service.py").read_text(encoding="utf-8")
    # The example's own directory, too: its application is a module of its own.
    path = os.pathsep.join([str(PACKAGE_DIRECTORY), str(directory)])
    accepted: set[int] = set()
    counts: Counter[str] = Counter()
    with open_serving(source, environment={"PORT": "0", "PYTHONPATH": path}) as serving:
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
    """Give what is done, in turns; each second kill is one by SIGKILL."""
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
        pass  # those of before
    for _ in range(count):
        assert answered.acquire(timeout=PATIENCE), "nobody gets an answer any more"


def _address(serving: Serving) -> tuple[str, int]:
    worker = serving.worker(WORKERS[0])
    host, _, port = worker["status"].strip("/").removeprefix("http://").partition(":")
    return host, int(port)


def _reload(serving: Serving) -> None:
    since = serving.mark()
    serving.process.send_signal(signal.SIGHUP)
    serving.wait_event(since=since, event="reloaded")


def _kill(serving: Serving, name: str, signal_name: str, port: int) -> set[int]:
    """Kill a worker; return which connections are lost with it, once it is replaced."""
    process_id = serving.select(event="ready", name=name)[-1]["process_id"]
    since = serving.mark()
    accepted: set[int] = set()
    if signal_name == "SIGKILL":
        # It accepts no more from here on, so that what it has can be read.
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
    """Return the other ends of its connections to *port*: proc_net_tcp(5)."""
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
def test_no_client_is_turned_away_while_workers_are_replaced(
    example: str, reloads: int, kills: int
) -> None:
    """Nobody is refused, and only who was with a killed process is cut off."""
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
