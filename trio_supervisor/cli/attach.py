"""Attach the terminal to that of a worker."""

from __future__ import annotations

import codecs
import signal
from argparse import Namespace
from base64 import b64decode, b64encode
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.cli.connection import UsageError, socket_path
from trio_supervisor.cli.detaching import SHOWN, DetachKeys
from trio_supervisor.cli.local_terminal import LocalTerminal
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    NoSupervisorError,
    RemoteProtocolError,
)
from trio_supervisor.link.client import Client, open_client
from trio_supervisor.process.output.escaping import escape_text
from trio_supervisor.tasks import single
from trio_supervisor.wire.controller_messages import Attach, TypeKeys
from trio_supervisor.wire.json_tree import Object

# Interval at which a connection that was lost is made again [s].
_RETRY: Final = 0.1
# Keys of one call; in base64 within its limit.
_KEYS: Final = 4096
_QUEUED: Final = 64
"""Calls of keys that wait for a program that reads slowly."""
# How long keys typed before those that detach may take [s].
_LAST_KEYS: Final = 1.0
_TAIL: Final = 256
"""Bytes by which output that was shown already is found again."""
_PROMPT: Final = 80
"""Longest line that counts as a prompt [bytes]."""
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def run_attach(arguments: Namespace) -> None:
    """Show what a worker writes, and pass on what is typed, until detached."""
    if not arguments.name:
        raise UsageError("expected the name of a worker")
    path = socket_path(arguments.socket)
    with LocalTerminal() as terminal:
        session = AttachedSession(arguments.name, path, terminal)
        try:
            trio.run(session.run)
        except BaseExceptionGroup as exc:
            raise single(exc) from None
    if session.ended_by is not None:
        signal.raise_signal(session.ended_by)


@define(eq=False)
class AttachedSession:
    """One run of the verb, over any number of connections."""

    _name: str
    _path: str
    _terminal: LocalTerminal
    ended_by: int | None = field(default=None, init=False)
    """Signal that ended it; None: none did."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _client: Client | None = field(default=None, init=False)
    """The present connection; None: there is none."""
    _begun: trio.Event = field(factory=trio.Event, init=False)
    """Set when the state of the worker is known."""
    _has_terminal: bool = field(default=False, init=False)
    """Whether the worker has one."""
    _process_id: int | None = field(default=None, init=False)
    """The worker's process that was announced last; None: it has exited."""
    _decoder: codecs.IncrementalDecoder = field(init=False)
    _tail: bytes = field(default=b"", init=False)
    """What was shown last."""
    _is_resumed: bool = field(default=False, init=False)
    """Whether the next output may begin with what was shown already."""

    def __attrs_post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    async def run(self) -> None:
        """Stay attached until the user detaches, or the application has stopped.

        Raises:
            SupervisorError: it cannot be attached.
        """
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey_signals)
                nursery.start_soon(self._pass_keys)
                await self._stay_connected()
                nursery.cancel_scope.cancel()

    async def _stay_connected(self) -> None:
        while True:
            try:
                await self._run_once()
                self._terminal.say("the application has stopped")
                return
            except Exception as exc:  # a group, if it is raised in a nursery
                error = single(exc)
                if not self._begun.is_set():
                    raise error from None
                if isinstance(error, NoSupervisorError):
                    self._terminal.say("the application has stopped")
                    return
                if not _is_passing(error):
                    raise error from None
            if self._client is not None:
                self._client = None
                self._terminal.say("connection to the supervisor lost; reconnecting")
            await trio.sleep(_RETRY)

    async def _run_once(self) -> None:
        """Show what the worker writes until the connection, or its output, ends."""
        async with open_client(self._path) as client:
            lines, columns = self._terminal.size() or (None, None)
            call = Attach(name=self._name, lines=lines, columns=columns)

            def take(answer: Object) -> None:
                self._client = client
                self._take(answer)

            await client.call(call, take)

    def _take(self, answer: Object) -> None:
        try:
            if answer["missed"]:
                self._terminal.say("output was dropped: this terminal is too slow")
            for entry in answer["entries"]:
                if "data" in entry:
                    self._show(b64decode(entry["data"], validate=True))
                else:
                    self._on_process(
                        int(entry["process_id"]) if entry["is_running"] else None,
                        bool(entry["has_terminal"]),
                    )
        except (KeyError, TypeError, ValueError) as exc:
            raise RemoteProtocolError(f"malformed answer ({exc!r:.200})") from None

    def _show(self, data: bytes) -> None:
        if self._is_resumed:
            self._is_resumed = False
            data = unseen(data, self._tail)
        self._tail = (self._tail + data)[-_TAIL:]
        if not self._has_terminal:
            text = escape_text(self._decoder.decode(data).replace("\r\n", "\n"))
            data = text.encode("utf-8", "backslashreplace")
            if self._terminal.is_raw:
                data = data.replace(b"\n", b"\r\n")
        self._terminal.write(data)

    def _on_process(self, process_id: int | None, has_terminal: bool) -> None:
        """Say which process of the worker runs, and what can be done."""
        say, name = self._terminal.say, self._name
        before, self._process_id = self._process_id, process_id
        self._has_terminal = has_terminal
        if not self._begun.is_set():
            if has_terminal:
                self._terminal.make_raw()  # first: what is typed then is not lost
            say(self._greeting())
            self._begun.set()
            if process_id is None:
                say(f"{name} is not running; waiting for its next process")
        elif process_id is None:
            say(f"{name} has exited; waiting for its next process")
        elif process_id == before:
            self._is_resumed = True
            say("connected again")
        else:
            say(f"{name} has started (pid {process_id})")

    def _greeting(self) -> str:
        if not self._has_terminal:
            return f"{self._name} has no terminal: output only; input needs tty=True"
        if not self._terminal.is_interactive:
            return f"output of {self._name} only: this is not a terminal"
        return f"attached to {self._name}; {SHOWN} detaches"

    async def _pass_keys(self) -> None:
        await self._begun.wait()
        if not (self._has_terminal and self._terminal.is_interactive):
            return
        send, receive = trio.open_memory_channel[bytes](_QUEUED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._type_all, receive)
            async with send:
                await self._read_keys(send)
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_KEYS
        self._terminal.say(f"detached from {self._name}, which keeps running")
        self._scope.cancel()

    async def _read_keys(self, send: trio.MemorySendChannel[bytes]) -> None:
        """Pass on what is typed until detached, whether or not the program reads it."""
        keys = DetachKeys()
        while not keys.is_detached:
            if not (typed := await self._terminal.keys()):
                return
            passed = keys.take(typed)
            for first in range(0, len(passed), _KEYS):
                try:
                    send.send_nowait(passed[first : first + _KEYS])
                except trio.WouldBlock:
                    self._terminal.say(f"keys were dropped: {self._name} reads none")
                    break

    async def _type_all(self, receive: trio.MemoryReceiveChannel[bytes]) -> None:
        async for keys in receive:
            data = b64encode(keys).decode("ascii")
            await self._type(TypeKeys(name=self._name, data=data))

    async def _type(self, call: TypeKeys) -> None:
        if self._client is None:
            return
        try:
            await self._client.call(call)
        except CallFailedError as exc:
            self._terminal.say(exc.message)
        except ConnectionLostError:  # which the other task notices, too
            pass

    async def _obey_signals(self) -> None:
        with trio.open_signal_receiver(*_ENDING, signal.SIGWINCH) as received:
            async for number in received:
                if number != signal.SIGWINCH:
                    self.ended_by = number
                    self._scope.cancel()
                elif (size := self._terminal.size()) is not None:
                    lines, columns = size
                    call = TypeKeys(name=self._name, lines=lines, columns=columns)
                    await self._type(call)


def _is_passing(error: BaseException) -> bool:
    """Return whether it is worth it to connect again after *error*."""
    if isinstance(error, CallFailedError):
        return error.error_class == "Unavailable"
    return isinstance(error, ConnectionLostError)


def unseen(data: bytes, tail: bytes) -> bytes:
    """Return what follows *tail*, which was shown already, in *data*.

    A short line without an end, such as a prompt, is shown again.
    """
    place = data.rfind(tail) if tail else -1
    if place < 0:
        return data
    line = tail.rpartition(b"\n")[2]
    return (line if len(line) <= _PROMPT else b"") + data[place + len(tail) :]
