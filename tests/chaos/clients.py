"""Clients that have jobs done, and remember which were acknowledged."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_CLIENTS: Final = 4
_JOBS_PER_CONNECTION: Final = 20
_PATIENCE: Final = 60.0
"""No job may take longer, even if its worker is killed [s]."""


class Clients:
    """Threads with jobs; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._address = str(directory / "jobs.sock")
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,))
            for number in range(_CLIENTS)
        ]
        self.acknowledged: list[str] = []
        self.lost_connections = 0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, client: int) -> None:
        number = 0
        while not self._is_over.is_set():
            with ExitStack() as stack:
                stream = stack.enter_context(socket.socket(socket.AF_UNIX))
                stream.settimeout(_PATIENCE)
                try:
                    stream.connect(self._address)
                    for _ in range(_JOBS_PER_CONNECTION):
                        number += 1
                        self._do(stream, f"{client}-{number}")
                except TimeoutError:
                    self.problems.append(f"client {client}: no answer")
                except (FileNotFoundError, ConnectionRefusedError) as exc:
                    self.problems.append(f"client {client}: {exc}")
                    self._is_over.wait(0.05)
                except OSError:  # its worker was killed
                    self.lost_connections += 1
            self._is_over.wait(0.002)

    def _do(self, stream: socket.socket, job: str) -> None:
        stream.sendall(f"{job}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            if not (piece := stream.recv(100)):
                raise ConnectionResetError
            answer += piece
        assert answer == f"done {job}\n".encode()
        self.acknowledged.append(job)
