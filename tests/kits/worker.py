"""A worker's surroundings for tests: a boot document, and an ear for what it says."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trio_supervisor.process.notify.sd_notify import Notifier
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.process.spawn.code_source import Pickled


def make_boot(directory: Path, **fields: Any) -> WorkerBoot:
    """Return what ``web.3`` is told, with other *fields*."""
    settings: dict[str, Any] = {
        "source": Pickled({}, b""),
        "name": "web.3",
        "service": "web",
        "index": 3,
        "incarnation": 2,
        "backend": "trio",
        "state": {"role": "tester"},
        "directory": None,
        "socket_path": str(directory / "supervisor.ipc"),
        "notify_path": str(directory / "notify"),
        "stop_signal": signal.SIGTERM,
        "stop_timeout": 10.0,
        "heartbeat": None,
        "switch_interval": None,
        **fields,
    }
    return WorkerBoot(**settings)


class Ear:
    """What a controller hears."""

    def __init__(self, receiver: socket.socket, notifier: Notifier) -> None:
        self._receiver = receiver
        self.notifier = notifier

    def next(self) -> str:
        """Wait for the next notification."""
        self._receiver.settimeout(60)
        return self._receiver.recv(4096).decode()

    def rest(self) -> list[str]:
        """Return what was sent and not received yet."""
        self._receiver.settimeout(0)
        found = []
        try:
            while True:
                found.append(self._receiver.recv(4096).decode())
        except BlockingIOError:
            return found


@contextmanager
def open_ear(directory: Path) -> Iterator[Ear]:
    """Listen where `make_boot` says for the length of the block."""
    path = str(directory / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        Notifier(path) as notifier,
    ):
        receiver.bind(path)
        yield Ear(receiver, notifier)
    os.unlink(path)
