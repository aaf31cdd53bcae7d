"""Listening sockets, bound by the controller and inherited by the workers.

They stay open while workers are replaced, so that no connection is refused during a
restart. They are blocking, as programs expect (sd_listen_fds(3)); trio and asyncio make
their copies non-blocking.
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
    """It listens; with ``reuse_port``, it only reserves the address."""
    _stack: ExitStack
    _is_adopted: bool
    _file: UnixSocketFile | None = None
    """The file of a Unix socket, if this process has created it."""
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
        """Return one for a *sock* from a service manager; all workers share it."""
        stack = ExitStack()
        stack.enter_context(sock)
        return cls(listen, sock, stack, is_adopted=True)

    @property
    def address(self) -> str:
        """Its actual address: ``127.0.0.1:8080``, ``[::1]:8080``, ``unix:/run/x``."""
        if self._listen.kind == "unix" and not self._is_adopted:
            return declared_address(self._listen)  # it is bound under a temporary name
        return bound_address(self._socket)

    @property
    def _has_one_each(self) -> bool:
        is_tcp = self._listen.kind == "tcp"
        return is_tcp and self._listen.reuse_port and not self._is_adopted

    def descriptor(self, index: int) -> int:
        """Return the descriptor for worker *index*; it stays open here.

        Raises:
            ListenError: with ``reuse_port``, its own socket cannot be bound.
        """
        if not self._has_one_each:
            return self._socket.fileno()
        if index not in self._workers:
            self._workers[index] = bind_beside(self._socket, self._listen.backlog)
        return self._workers[index].fileno()

    def release(self, index: int) -> None:
        """Close the own socket of worker *index*, which will not come back.

        Otherwise the kernel would keep giving connections to it.
        """
        if (sock := self._workers.pop(index, None)) is not None:
            sock.close()

    def restore(self) -> bool:
        """Recreate the file of a Unix socket if it was removed; return whether it was.

        The file belongs to a new socket then; running workers have the old one.

        Raises:
            OSError: it cannot be created.
        """
        return self._file is not None and self._file.restore()

    def is_same(self, other: ListenAddress) -> bool:
        """Return whether the declaration *other* can keep using this socket.

        Raises:
            ListenError: the address is the same, but the socket cannot be converted.
        """
        if _identity(self._listen) != _identity(other):
            return False
        if self._listen.kind == "tcp" and self._listen.reuse_port != other.reuse_port:
            raise ListenError(
                f"reuse_port of {declared_address(other)} cannot be changed by a "
                f"reload; restart the controller"
            )
        return True

    def update(self, listen: ListenAddress) -> None:
        """Apply backlog, mode and owners of *listen*."""
        if self._is_adopted:
            return  # configured by its systemd unit
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
        except FileNotFoundError:
            logger.warning("the socket file %s was removed", path)
        except OSError as exc:
            logger.error(
                "cannot change owner and mode of %s: %s; keeping the old ones",
                path,
                exc.strerror,
            )

    def close(self) -> None:
        """Stop listening; remove the file of a Unix socket created by this process."""
        for index in list(self._workers):
            self.release(index)
        self._stack.close()


@define(eq=False)
class SocketSet:
    """The sockets of an application, by name; made by `open_sockets`."""

    _sockets: dict[str, SharedSocket]

    @property
    def addresses(self) -> dict[str, str]:
        """The actual addresses; a port 0 is replaced by the port in use."""
        return {name: shared.address for name, shared in self._sockets.items()}

    def descriptors(self, names: Iterable[str], index: int) -> dict[str, int]:
        """Return the descriptors of the sockets *names* for worker *index*.

        Raises:
            ListenError: with ``reuse_port``, its own socket cannot be bound.
        """
        return {name: self._sockets[name].descriptor(index) for name in names}

    def release(self, names: Iterable[str], index: int) -> None:
        """Close the own sockets of worker *index*, which will not come back."""
        for name in names:
            self._sockets[name].release(index)

    def restore(self) -> list[str]:
        """Recreate removed files; return the names of their sockets.

        Raises:
            OSError: none of the removed files can be created.
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
        """Prepare to listen on *listens*, and on nothing else after the commit.

        Unchanged sockets are kept, even under another name; new ones are bound now,
        before anything is started. If the block is left without a commit, the previous
        sockets stay. One change at a time.

        Raises:
            ListenError: a new socket cannot be bound; nothing has changed.
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
    """A set of sockets that is about to replace another; see `SocketSet.change`."""

    sockets: SocketSet
    """The new set: workers that are started now get their descriptors from it."""
    _before: SocketSet
    _listens: Mapping[str, ListenAddress]
    _removed: tuple[SharedSocket, ...]
    is_committed: bool = field(default=False, init=False)

    def commit(self) -> None:
        """Close removed sockets, apply new backlogs and modes. Call it once."""
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
    """Listen on *listens* within the block; close all sockets at the end.

    Args:
        adopted: Sockets passed by a service manager, used for matching declarations;
            the others are closed.

    Raises:
        ListenError: a socket cannot be bound; none is left open.
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
    """Return the name of the socket that *listen* can keep using; None: none."""
    if name in sockets and sockets[name].is_same(listen):
        return name
    if listen.kind == "tcp" and not listen.port:
        return None  # any free port: under another name, it is another socket
    return next((key for key, it in sockets.items() if it.is_same(listen)), None)


def _access(listen: ListenAddress) -> tuple[object, ...]:
    return listen.mode, listen.user, listen.group


def _identity(listen: ListenAddress) -> tuple[object, ...]:
    if listen.kind == "unix":
        return ("unix", os.path.abspath(listen.path))
    return ("tcp", listen.host, listen.port)
