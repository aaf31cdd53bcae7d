"""Listening sockets: bound once by the controller, inherited by every worker.

They stay open while workers come and go, so no connection is refused by a restart.
They are left blocking, as programs expect them (sd_listen_fds(3)); who reads by an
event loop makes his own non-blocking, as trio and asyncio do.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Self

from attrs import define, field

from trio_supervisor.errors import ListenError
from trio_supervisor.process.owners import give_to
from trio_supervisor.process.sockets.bind import (
    ListenAddress,
    bind_beside,
    bind_tcp,
    bind_unix,
    bound_address,
    check_owners,
    declared_address,
)
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.sockets.unix_files import UnixSocketFile

logger = logging.getLogger(__name__)


@define(eq=False)
class SharedSocket:
    """One declared address, bound; made by `open_sockets`."""

    _listen: ListenAddress
    _socket: socket.socket
    """Listens; with ``reuse_port`` it only holds the address."""
    _stack: ExitStack
    _is_adopted: bool
    _file: UnixSocketFile | None = None
    """What is kept at its path, if we made it."""
    _workers: dict[int, socket.socket] = field(factory=dict, init=False)

    @classmethod
    async def bind(cls, listen: ListenAddress) -> Self:
        """Bind *listen*; raises `ListenError`. A cancellation leaves nothing open."""
        with ExitStack() as stack:
            if listen.kind == "unix":
                made = stack.enter_context(bind_unix(listen))
                sock = made.listener
            else:
                made, sock = None, stack.enter_context(await bind_tcp(listen))
            return cls(listen, sock, stack.pop_all(), is_adopted=False, file=made)

    @classmethod
    def adopt(cls, listen: ListenAddress, sock: socket.socket) -> Self:
        """Return one for a *sock* that somebody else bound: all workers share it."""
        stack = ExitStack()
        stack.enter_context(sock)
        return cls(listen, sock, stack, is_adopted=True)

    @property
    def address(self) -> str:
        """Where it really is: ``127.0.0.1:8080``, ``[::1]:8080``, ``unix:/run/x``."""
        if self._listen.kind == "unix" and not self._is_adopted:
            return declared_address(self._listen)  # its own name is another one
        return bound_address(self._socket)

    @property
    def _has_one_each(self) -> bool:
        is_tcp = self._listen.kind == "tcp"
        return is_tcp and self._listen.reuse_port and not self._is_adopted

    def descriptor(self, index: int) -> int:
        """Return what worker *index* inherits; it stays ours, and open.

        Raises:
            ListenError: it needs a socket of its own, and that cannot be bound.
        """
        if not self._has_one_each:
            return self._socket.fileno()
        if index not in self._workers:
            self._workers[index] = bind_beside(self._socket, self._listen.backlog)
        return self._workers[index].fileno()

    def release(self, index: int) -> None:
        """Say that worker *index* will not come back.

        The kernel would go on giving connections to a socket that nobody reads.
        """
        if (sock := self._workers.pop(index, None)) is not None:
            sock.close()

    def restore(self) -> bool:
        """Make the file of a Unix socket again if it is gone; say whether it was.

        It is a new socket then: workers that run have the old one.

        Raises:
            OSError: that is not possible now.
        """
        return self._file is not None and self._file.restore()

    def is_same(self, other: ListenAddress) -> bool:
        """Whether *other* can go on with this socket.

        Raises:
            ListenError: it is the same address in a way that excludes this one.
        """
        if _identity(self._listen) != _identity(other):
            return False
        if self._listen.kind == "tcp" and self._listen.reuse_port != other.reuse_port:
            raise ListenError(
                f"reuse_port of {declared_address(other)} cannot change while it is "
                f"in use; stop the controller and start it again"
            )
        return True

    def update(self, listen: ListenAddress) -> None:
        """Go on as *listen* says: backlog, mode and owners may be others."""
        if self._is_adopted:
            return  # as its own unit says
        if listen.backlog != self._listen.backlog:
            own = self._workers.values() if self._has_one_each else [self._socket]
            for sock in own:
                sock.listen(listen.backlog)
        if listen.kind == "unix" and _access(listen) != _access(self._listen):
            self._change_access(listen)
        if self._file is not None:
            self._file.mode, self._file.backlog = listen.mode, listen.backlog
            self._file.user, self._file.group = listen.user, listen.group
        self._listen = listen

    def _change_access(self, listen: ListenAddress) -> None:
        path = listen.path
        try:
            user = os.geteuid() if listen.user is None else listen.user
            group = os.getegid() if listen.group is None else listen.group
            give_to(path, user, group)
            os.chmod(path, listen.mode)
        except FileNotFoundError:  # somebody removed it
            logger.warning("the socket file %s was removed", path)
        except OSError as exc:
            logger.error("%s keeps its owner and mode: %s", path, exc.strerror)

    def close(self) -> None:
        """Stop listening; remove the file of a Unix socket that we made."""
        for index in list(self._workers):
            self.release(index)
        self._stack.close()


@define(eq=False)
class SocketSet:
    """The sockets of an application, by name; made by `open_sockets`."""

    _sockets: dict[str, SharedSocket]

    @property
    def addresses(self) -> dict[str, str]:
        """Where each really is; a port 0 was replaced by the port it got."""
        return {name: shared.address for name, shared in self._sockets.items()}

    def descriptors(self, names: Iterable[str], index: int) -> dict[str, int]:
        """Return what worker *index* of a service with the sockets *names* inherits.

        Raises:
            ListenError: one of its own, for ``reuse_port``, cannot be bound.
        """
        return {name: self._sockets[name].descriptor(index) for name in names}

    def release(self, names: Iterable[str], index: int) -> None:
        """Say that worker *index* of that service will not come back."""
        for name in names:
            self._sockets[name].release(index)

    def restore(self) -> list[str]:
        """Make again the files that are gone; return the names of their sockets.

        Raises:
            OSError: one cannot be made now; the others are.
        """
        found, problems = [], []
        for name, shared in self._sockets.items():
            try:
                if shared.restore():
                    found.append(name)
            except OSError as exc:
                problems.append(exc)
        if problems and not found:
            raise problems[0]
        return found

    @asynccontextmanager
    async def change(
        self, listens: Mapping[str, ListenAddress]
    ) -> AsyncIterator[SocketChange]:
        """Prepare to listen at *listens*, and at nothing else after the commit.

        What is declared as before, under whatever name, is kept; the new are bound
        now, before anything is started. If the block is left without a commit, all is
        as it was. One change at a time.

        Raises:
            ListenError: a new one cannot be bound; nothing changed.
        """
        with ExitStack() as stack:
            left = dict(self._sockets)
            after: dict[str, SharedSocket] = {}
            for name, listen in listens.items():
                check_owners(listen)
                if (kept := _find(left, name, listen)) is not None:
                    after[name] = left.pop(kept)
                else:
                    after[name] = await SharedSocket.bind(listen)
                    stack.callback(after[name].close)
            change = SocketChange(SocketSet(after), self, listens, tuple(left.values()))
            try:
                yield change
            finally:
                if change.is_committed:
                    stack.pop_all()

    def close(self) -> None:
        """Stop listening."""
        sockets, self._sockets = self._sockets, {}
        for shared in sockets.values():
            shared.close()


@define(eq=False)
class SocketChange:
    """A set of sockets about to take the place of another; see `SocketSet.change`."""

    sockets: SocketSet
    """Those to come: what is started now gets its descriptors from here."""
    _before: SocketSet
    _listens: Mapping[str, ListenAddress]
    _removed: tuple[SharedSocket, ...]
    is_committed: bool = field(default=False, init=False)

    def commit(self) -> None:
        """Switch: close what was removed, apply other backlogs and modes. Once."""
        self.is_committed = True
        self._before._sockets = self.sockets._sockets
        for name, listen in self._listens.items():
            self.sockets._sockets[name].update(listen)
        for shared in self._removed:
            shared.close()


@asynccontextmanager
async def open_sockets(
    listens: Mapping[str, ListenAddress], adopted: AdoptedDescriptors | None = None
) -> AsyncIterator[SocketSet]:
    """Listen at *listens* for the length of the block; leave nothing behind.

    Args:
        adopted: What a service manager handed over, which is used where it fits; what
            nobody took is closed.

    Raises:
        ListenError: one cannot be bound; none is open then.
    """
    sockets = SocketSet({})
    try:
        if adopted is not None:
            for name, sock in (await adopted.take_sockets(listens)).items():
                sockets._sockets[name] = SharedSocket.adopt(listens[name], sock)
            adopted.close()
        for name, listen in listens.items():
            if name not in sockets._sockets:
                sockets._sockets[name] = await SharedSocket.bind(listen)
        yield sockets
    finally:
        sockets.close()
        if adopted is not None:
            adopted.close()


def _find(
    sockets: Mapping[str, SharedSocket], name: str, listen: ListenAddress
) -> str | None:
    """Return the name of the one that goes on as *listen*."""
    if name in sockets and sockets[name].is_same(listen):
        return name
    if listen.kind == "tcp" and not listen.port:
        return None  # any free port: under another name it is another one
    return next((key for key, it in sockets.items() if it.is_same(listen)), None)


def _access(listen: ListenAddress) -> tuple[object, ...]:
    return listen.mode, listen.user, listen.group


def _identity(listen: ListenAddress) -> tuple[object, ...]:
    if listen.kind == "unix":
        return ("unix", os.path.abspath(listen.path))
    return ("tcp", listen.host, listen.port)
