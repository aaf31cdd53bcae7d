"""Test the notifications to systemd and to NOTIFY_LOG, from start to end."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import field, frozen

from tests.kits.serving import (
    PACKAGE_DIRECTORY,
    PATIENCE,
    open_serving,
    short_directory,
)

SERVICE = """
from trio_supervisor import Application, Listen, Service, Worker

async def web(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application([
    Service("web", web, count=2, sockets={"http": Listen("tcp://127.0.0.1:0")},
            startup_timeout=20, stop_timeout=3),
])
"""

HANGS = """
import signal
import time

signal.signal(signal.SIGVTALRM, lambda *_: time.sleep(1000))
"""
"""Code for each interpreter: a handler for this signal that never returns."""


@frozen
class Manager:
    """A socket that receives what a service manager receives."""

    _socket: socket.socket
    heard: list[dict[str, str]] = field(factory=list)
    descriptors: dict[str, int] = field(factory=dict)

    def next(self) -> dict[str, str]:
        """Wait for the next datagram."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, 8192, 4)
        news = dict(line.split("=", 1) for line in data.decode().splitlines())
        for descriptor in descriptors:
            self.descriptors[news["FDNAME"]] = descriptor
        self.heard.append(news)
        return news

    def until(self, key: str) -> dict[str, str]:
        """Wait for a datagram that has *key*."""
        while key not in (news := self.next()):
            pass
        return news

    def drain(self) -> None:
        """Read the datagrams that have arrived."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.next()
        self._socket.settimeout(PATIENCE)

    def silence(self, seconds: float) -> bool:
        """Return whether no further datagram arrives for that long."""
        self.drain()
        self._socket.settimeout(seconds)
        try:
            self.next()
        except TimeoutError:
            return True
        else:
            return False
        finally:
            self._socket.settimeout(PATIENCE)


@contextmanager
def open_manager() -> Iterator[tuple[Manager, str]]:
    with (
        short_directory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        path = str(directory / "notify")
        sock.bind(path)
        sock.settimeout(PATIENCE)
        manager = Manager(sock)
        try:
            yield manager, path
        finally:
            for descriptor in manager.descriptors.values():
                os.close(descriptor)


def test_systemd_is_notified_from_start_to_end() -> None:
    """The phases are start, sockets, reload, failed reload and end."""
    with (
        open_manager() as (manager, path),
        open_serving(
            SERVICE,
            is_ready=False,
            # Rarely: the socket holds ten datagrams, and further ones are lost.
            environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"},
        ) as serving,
    ):
        ready = manager.until("READY")
        assert ready["STATUS"] == "2 workers ready"
        told = {key: value for news in manager.heard for key, value in news.items()}
        # A little longer than its service may take to start.
        assert 20e6 <= int(told["EXTEND_TIMEOUT_USEC"]) <= 60e6
        manager.until("WATCHDOG")
        stored = next(news for news in manager.heard if "FDSTORE" in news)
        assert (stored["FDSTORE"], stored["FDNAME"]) == ("1", "http")
        with socket.socket(fileno=os.dup(manager.descriptors["http"])) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

        before = len(manager.heard)
        serving.process.send_signal(signal.SIGHUP)
        reloading = manager.until("RELOADING")
        again = manager.until("READY")
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert again["STATUS"] == "generation 2 is running"
        # The same socket is stored only once.
        assert not any("FDSTORE" in news for news in manager.heard[before:])

        serving.edit("raise LookupError('no')")
        serving.process.send_signal(signal.SIGHUP)
        failed = manager.until("READY")
        assert "LookupError: no" in failed["STATUS"]

        before = len(manager.heard)
        serving.edit(
            SERVICE.replace(
                '"http": Listen("tcp://127.0.0.1:0")',
                '"other": Listen("tcp://127.0.0.1:0")',
            )
        )
        serving.process.send_signal(signal.SIGHUP)
        manager.until("READY")
        news = manager.heard[before:]
        names = [(n["FDNAME"], n.get("FDSTORE", "gone")) for n in news if "FDNAME" in n]
        assert names == [("http", "gone"), ("other", "1")]

        before = len(manager.heard)
        serving.process.send_signal(signal.SIGTERM)
        stopping = manager.until("STOPPING")
        assert stopping["STATUS"] == "received SIGTERM; shutting down"
        extended = manager.until("EXTEND_TIMEOUT_USEC")
        assert int(extended["EXTEND_TIMEOUT_USEC"]) >= 3e6
        assert serving.wait_exit() == 0


def test_watchdog_of_hanging_controller_is_not_notified() -> None:
    """Its process, threads and workers run, but it cannot supervise."""
    with (
        open_manager() as (manager, path),
        short_directory() as directory,
    ):
        # The controller imports no code of the application that could hang it.
        (directory / "sitecustomize.py").write_text(HANGS)
        environment = {
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": "200000",
            "PYTHONPATH": f"{directory}{os.pathsep}{PACKAGE_DIRECTORY}",
        }
        with open_serving(SERVICE, environment=environment) as serving:
            manager.until("WATCHDOG")
            manager.until("WATCHDOG")

            serving.process.send_signal(signal.SIGVTALRM)
            while not manager.silence(1.0):  # five times the interval
                pass

            assert serving.process.poll() is None
            # A service manager kills it then. The workers exit with their controller.
            left = serving.process_ids()
            serving.process.kill()
            serving.wait_exit()
            serving.wait_nothing_left()
            assert len(left) >= 4


def test_watchdog_is_notified_only_by_controller() -> None:
    """The variables are removed for workers, which could otherwise notify for it."""
    source = """
from trio_supervisor import Application, Command

TELL = 'echo "$NOTIFY_SOCKET,$WATCHDOG_USEC,$WATCHDOG_PID,$FDSTORE" >&2'
application = Application([
    Command("curious", ["sh", "-c", f"{TELL}; exec sleep 1000"]),
])
"""
    environment = {"WATCHDOG_USEC": "1000000", "NOTIFY_SOCKET": "/nowhere/notify"}
    with open_serving(source, environment=environment) as serving:
        serving.printed("curious.0", ",,,")
        serving.wait_line("cannot notify /nowhere/notify")
        assert serving.terminate() == 0


def test_notify_log_has_same_notifications() -> None:
    with short_directory() as directory:
        log = Path(directory, "notify.log")
        with open_serving(SERVICE, environment={"NOTIFY_LOG": str(log)}) as serving:
            assert serving.cli("reload").returncode == 0
            serving.wait_event(event="reloaded")
            assert serving.terminate() == 0

        news = [json.loads(line) for line in log.read_text().splitlines()]

    assert {"ready": True, "size": 2, "status": "2 workers ready"} in news
    reloading = {"ready": False, "reloading": True, "status": "Reloading..."}
    assert reloading in news
    assert news.index(reloading) > 0
    assert news[-1] == {"stopping": True, "status": "received SIGTERM; shutting down"}


SLOW = (
    SERVICE
    + """
import sys
if "serve" not in sys.orig_argv:  # imported again: a reload is under way
    import time
    open("importing", "w").close()
    time.sleep(1000)
"""
)


def test_reload_result_during_shutdown_is_not_notified() -> None:
    with open_manager() as (manager, path):
        environment = {"NOTIFY_SOCKET": path}
        with open_serving(SERVICE, environment=environment) as serving:
            manager.until("READY")
            serving.edit(SLOW)
            serving.process.send_signal(signal.SIGHUP)
            serving.process.send_signal(signal.SIGHUP)  # and a second one that waits
            importing = serving.directory / "importing"
            serving.until(importing.exists, "a reload")
            assert serving.terminate() == 0
        manager.until("STOPPING")
        since = len(manager.heard)
        manager.drain()
        assert not any(
            {"READY", "RELOADING"} & news.keys() for news in manager.heard[since:]
        )
