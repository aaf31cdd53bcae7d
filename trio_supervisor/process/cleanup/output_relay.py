"""What children print after their controller was killed: read, and passed on.

The guardian has a copy of the end to read from of each child's pipes. While the
controller lives it does not touch them. A child that prints while it cleans up gets
neither EPIPE nor SIGPIPE then. Standard library only, as the guardian.

One packet for a process: ``PID`` and a newline, then a JSON array that has for each
descriptor that comes with it an object with ``name``, ``stream``, ``path`` and
``form``. Without descriptors, the process is gone.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import Any, Final

from trio_supervisor.process.output.escaping import escape_json, escape_line

# What a destination that takes nothing is waited for before its data is dropped [s].
_PATIENCE: Final = 0.5
# Read at once: little, so that one that prints without end holds nobody up.
_STEP: Final = 4096
# So much of a line is kept until its end comes.
_LONGEST: Final = 64 * 1024
# A write of so much to a pipe that select(2) says is writable does not block: pipe(7).
_ATOMIC: Final = 4096
_INTERVAL: Final = 0.05
MAX_DESCRIPTORS: Final = 8
_begun: Final = set[int | None]()
"""Descriptors of our own that lines were written to."""


class OutputRelay:
    """The ends to read from of all children."""

    def __init__(self) -> None:
        self._packets: dict[bytes, tuple[bytes, list[int]]] = {}
        self._is_over = threading.Event()

    def receive(self, packet: bytes, descriptors: list[int]) -> None:
        """Take in one packet."""
        process_id, _, text = packet.partition(b"\n")
        _, old = self._packets.pop(process_id, (b"", []))
        for descriptor in old:
            os.close(descriptor)
        if descriptors:
            self._packets[process_id] = (text, descriptors)

    def start(self) -> threading.Thread:
        """Pass on what comes from now on, in a thread, until `finish`."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def finish(self, thread: threading.Thread, timeout: float = 2.0) -> None:
        """Pass on what is there, for a while; nothing prints any more."""
        self._is_over.set()
        thread.join(timeout)

    def _run(self) -> None:
        streams = dict(self._open())
        poll = select.poll()
        for descriptor in streams:
            poll.register(descriptor, select.POLLIN)
        while streams:
            is_last = self._is_over.is_set()
            ready = poll.poll(0 if is_last else int(_INTERVAL * 1000))
            for descriptor, _ in ready:
                if not streams[descriptor].pump():
                    poll.unregister(descriptor)
                    del streams[descriptor]
            if is_last and not ready:
                break
        for stream in streams.values():
            stream.end()

    def _open(self) -> list[tuple[int, _Stream]]:
        import json  # not before it is needed: most guardians never are

        found = []
        for process_id, (text, descriptors) in self._packets.items():
            for fields, descriptor in zip(json.loads(text), descriptors, strict=False):
                fields["pid"] = int(process_id)
                found.append((descriptor, _Stream(descriptor, fields)))
        return found


class _Stream:
    """One pipe, and where its lines go."""

    def __init__(self, descriptor: int, fields: dict[str, Any]) -> None:
        self._descriptor = descriptor
        self._fields = fields
        self._rest = b""
        self._target: int | None = 2 if fields["stream"] == "stderr" else 1
        if (path := fields.pop("path")) is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            try:
                self._target = os.open(path, flags, 0o666)
            except OSError:
                self._target = None
            fields["form"] = "raw"
        self._form = fields.pop("form")

    def pump(self) -> bool:
        """Read once, and write the whole lines; say whether more may come."""
        try:
            data = os.read(self._descriptor, _STEP)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self.end()
            return False
        if self._form == "raw":
            self._write(data)
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        self._write_lines(list(map(self._render, lines)))
        return True

    def end(self) -> None:
        """Write a line that has no end."""
        if self._rest:
            self._write_lines([self._render(self._rest)])
            self._rest = b""

    def _write_lines(self, lines: list[bytes]) -> None:
        """Write whole lines at once, for other processes may write there, too."""
        if lines and self._target not in _begun:
            # The controller may have been killed in the middle of a line.
            _begun.add(self._target)
            lines = [b"\n", *lines]
        step = b""
        for line in lines:
            if len(step) + len(line) > _ATOMIC:
                self._write(step)
                step = b""
            step += line
        self._write(step)

    def _render(self, line: bytes) -> bytes:
        if self._form == "json":
            import json

            now = time.time()
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            milliseconds = f"{int(now % 1 * 1000):03}"
            entry = {"time": f"{moment}.{milliseconds}Z", **self._fields}
            entry["message"] = line.decode("utf-8", "backslashreplace")
            text = json.dumps(entry, ensure_ascii=False)
            return escape_json(text).encode("utf-8", "backslashreplace") + b"\n"
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        return f"{self._fields['name']:<12} | {escape_line(text)}\n".encode()

    def _write(self, data: bytes) -> None:
        """Write *data*, or what is left of it not: nobody waits for who reads."""
        while data and self._target is not None:
            with suppress(OSError, ValueError):
                if not select.select([], [self._target], [], _PATIENCE)[1]:
                    return
                count = os.write(self._target, data[:_ATOMIC])
                data = data[count:]
                continue
            self._target = None  # closed: what prints does not have to know
