"""Relay the output of children after their controller was killed.

The guardian has a copy of the read end of each child's pipes, and uses it only after
the controller was killed. So a child that prints during its cleanup gets neither EPIPE
nor SIGPIPE. Standard library only, like the guardian.

One packet for a process: ``PID`` and a newline, then a JSON array with an object
(``name``, ``stream``, ``path`` and ``form``) for each descriptor in the packet. A
packet without descriptors means that the process is gone.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import Any, Final

from trio_supervisor.process.output.escaping import escape_json, escape_line

# How long to wait for a blocked destination before its data is dropped [s].
_WRITE_TIMEOUT: Final = 0.5
# Size of a read; small, so that a child that prints endlessly does not block others.
_STEP: Final = 4096
# Longest incomplete line that is kept.
_LONGEST: Final = 64 * 1024
# PIPE_BUF: a write of this size to a writable pipe does not block: pipe(7).
_ATOMIC: Final = 4096
_INTERVAL: Final = 0.05
MAX_DESCRIPTORS: Final = 8
_begun: Final = set[int | None]()
"""Own descriptors that lines were written to."""


class OutputRelay:
    """The read ends of the pipes of all children."""

    def __init__(self) -> None:
        self._packets: dict[bytes, tuple[bytes, list[int]]] = {}
        self._is_over = threading.Event()

    def receive(self, packet: bytes, descriptors: list[int]) -> None:
        """Process one packet."""
        process_id, _, text = packet.partition(b"\n")
        _, old = self._packets.pop(process_id, (b"", []))
        for descriptor in old:
            os.close(descriptor)
        if descriptors:
            self._packets[process_id] = (text, descriptors)

    def start(self) -> threading.Thread:
        """Relay output in a thread from now on, until `finish`."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def finish(self, thread: threading.Thread, timeout: float = 2.0) -> None:
        """Relay what is left in the pipes, for up to *timeout* [s]."""
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
        import json  # imported late: most guardians never need it

        found = []
        for process_id, (text, descriptors) in self._packets.items():
            for fields, descriptor in zip(json.loads(text), descriptors, strict=False):
                fields["pid"] = int(process_id)
                found.append((descriptor, _Stream(descriptor, fields)))
        return found


def _plain(descriptor: int) -> None:
    r"""Have a terminal leave ``\n`` as it is, as the controller does."""
    if os.isatty(descriptor):
        import termios

        with suppress(termios.error):
            attributes = termios.tcgetattr(descriptor)
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


class _Stream:
    """One pipe, and the destination of its lines."""

    def __init__(self, descriptor: int, fields: dict[str, Any]) -> None:
        self._descriptor = descriptor
        self._fields = fields
        self._rest = b""
        _plain(descriptor)
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
        """Read once, and write the complete lines; return whether more may come."""
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
        """Write the last line, if it has no newline."""
        if self._rest:
            self._write_lines([self._render(self._rest)])
            self._rest = b""

    def _write_lines(self, lines: list[bytes]) -> None:
        """Write whole lines in one call: other processes may write there as well."""
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
        """Write *data*; drop the rest if the destination blocks."""
        while data and self._target is not None:
            with suppress(OSError):
                writable = select.poll()  # select(2) has no descriptors above 1023
                writable.register(self._target, select.POLLOUT)
                if not writable.poll(int(_WRITE_TIMEOUT * 1000)):
                    return
                count = os.write(self._target, data[:_ATOMIC])
                data = data[count:]
                continue
            self._target = None  # closed: keep reading, so that children do not block
