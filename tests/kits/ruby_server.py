"""Run a server that answers and ignores what async-container-supervisor 0.10 does.

Its answers are those of the real server: see tests/wire/golden/ruby-server.jsonl.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = 'Async::Service::Loader["service.rb"]::MyWorkerService'
IDS = {
    13506: "d23522fa-3020-49bb-9552-d3d3f2493d60",
    13510: "5c2f5680-2384-45df-b450-28f19780a7f4",
}


class RubyServer:
    """A server that answers each connection in a thread and records the calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[dict[str, Any]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        """Answers of a worker, by operation."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting."""
        # A close alone would leave the thread in accept(2) forever.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @property
    def operations(self) -> list[str]:
        """Operations that were called, without the one that identifies the server."""
        calls = [call for call in self.calls if call.get("connection_id") != ""]
        return [call["do"] for call in calls]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                call = json.loads(line)
                self.calls.append({k: v for k, v in call.items() if k != "id"})
                for answer in self._answer(call):
                    stream.write(json.dumps({"id": call["id"], **answer}).encode())
                    stream.write(b"\n")
                stream.flush()

    def _answer(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        match call["do"]:
            case "status":
                yield {"memory_monitor": {"processes": {}}}
                yield {
                    "finished": True,
                    "connections": [
                        {
                            "connection_id": id_,
                            "process_id": pid,
                            "state": {"process_id": pid, "name": NAME},
                        }
                        for pid, id_ in IDS.items()
                    ],
                }
            case "restart":
                yield {"finished": True}
            case "forward" if call.get("connection_id") is None:
                text = "Missing 'connection_id' parameter"
                yield {"finished": True, "failed": True, "error": text}
            case "forward" if (id_ := call["connection_id"]) not in IDS.values():
                text = "Connection not found"
                failed = {"finished": True, "failed": True, "error": text}
                yield {**failed, "connection_id": id_}
            case "forward":
                do = call["operation"]["do"]
                yield {"finished": True, **self.answers.get(do, _unknown(do))}
            case do:
                yield {"finished": True, **_unknown(do)}


def _unknown(do: str) -> dict[str, Any]:
    error = {
        "class": "NoMethodError",
        "message": f"undefined method `do_{do}' for an instance of Server",
        "backtrace": ["gems/dispatchable.rb:23:in `public_send'"],
    }
    return {"failed": True, "error": error}


@contextmanager
def open_ruby_server(directory: Path) -> Iterator[RubyServer]:
    """Run a server while the block is open."""
    server = RubyServer(directory / "ruby.ipc")
    try:
        yield server
    finally:
        server.close()
