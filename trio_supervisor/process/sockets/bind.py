"""Bind one declared address; errors name the process that uses it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Protocol

import trio

from trio_supervisor.errors import ListenError
from trio_supervisor.process.owners import group_number, user_number
from trio_supervisor.process.sockets.unix_files import (
    UnixSocketFile,
    open_unix_socket_file,
)
from trio_supervisor.process.threads import run_in_thread

# Hosts that mean all interfaces.
_EVERYWHERE: Final = ("", "*")
# After these errors the next address of the host is tried: the system has no IPv6.
_NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class ListenAddress(Protocol):
    """An address to listen on, as declared; `application.Listen` is one."""

    @property
    def kind(self) -> str:
        """``"tcp"`` or ``"unix"``."""
        ...

    @property
    def host(self) -> str:
        """A name or a literal address. Empty or ``*``: all interfaces."""
        ...

    @property
    def port(self) -> int:
        """0: any free port."""
        ...

    @property
    def path(self) -> str:
        """Of a Unix socket."""
        ...

    @property
    def backlog(self) -> int:
        """Connections that may wait for an accept; the kernel has its own limit."""
        ...

    @property
    def reuse_port(self) -> bool:
        """Whether each worker has its own socket, and so its own queue."""
        ...

    @property
    def mode(self) -> int:
        """Mode of the file of a Unix socket."""
        ...

    @property
    def user(self) -> str | int | None:
        """Owner of the file of a Unix socket; None: unchanged."""
        ...

    @property
    def group(self) -> str | int | None:
        """Group of the file of a Unix socket; None: unchanged."""
        ...


def declared_address(listen: ListenAddress) -> str:
    """Return the declaration of *listen* as text."""
    if listen.kind == "unix":
        return f"unix:{listen.path}"
    return _host_port(listen.host, listen.port)


def bound_address(sock: socket.socket) -> str:
    """Return the address that *sock* is bound to, as text."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return _host_port(name[0], name[1])


async def resolve(listen: ListenAddress) -> list[tuple[int, tuple[Any, ...]]]:
    """Return the families and addresses of a TCP socket, best first.

    A host name stands for its first IPv4 address if it has one: a declared socket is
    one descriptor, and most clients of a name with both kinds also try IPv4.

    Raises:
        ListenError: the host cannot be resolved.
    """
    host, port = listen.host, listen.port
    if host in _EVERYWHERE:
        return [(socket.AF_INET6, ("::", port)), (socket.AF_INET, ("0.0.0.0", port))]
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise ListenError(
            f"cannot listen on {declared_address(listen)}: host {host!r} cannot be "
            f"resolved ({exc}); use an address of this machine"
        ) from exc
    addresses = [(int(family), tuple(address)) for family, _, _, _, address in found]
    return sorted(addresses, key=lambda item: item[0] != socket.AF_INET)


async def bind_tcp(listen: ListenAddress) -> socket.socket:
    """Return a socket bound to *listen*; with ``reuse_port``, it does not listen.

    Such a socket only reserves the address: if it listened, the kernel would give it
    connections that no worker accepts. A cancellation leaves nothing open.

    Raises:
        ListenError: it cannot be bound.
    """
    problem: OSError | None = None
    for family, address in await resolve(listen):
        is_everywhere = listen.host in _EVERYWHERE
        try:
            if not listen.reuse_port:
                return _bind(family, address, is_everywhere, backlog=listen.backlog)
            if listen.port:  # fail if another program's socket allows sharing
                _bind(family, address, is_everywhere, backlog=None).close()
            return _bind(family, address, is_everywhere, reuses=True)
        except OSError as exc:
            problem = exc
            if exc.errno not in _NOT_HERE:
                break
    assert problem is not None
    raise await _explain(listen, problem)


def bind_beside(holder: socket.socket, backlog: int) -> socket.socket:
    """Return another listening socket at the exact address of *holder*.

    Raises:
        ListenError: it cannot be bound.
    """
    is_everywhere = holder.family == socket.AF_INET6 and not holder.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    )
    name = holder.getsockname()
    try:
        return _bind(holder.family, name, is_everywhere, reuses=True, backlog=backlog)
    except OSError as exc:
        where = bound_address(holder)
        raise ListenError(
            f"cannot open another socket on {where} (reuse_port): {exc}"
        ) from exc


@contextmanager
def bind_unix(listen: ListenAddress) -> Iterator[UnixSocketFile]:
    """Listen on the path of *listen* within the block.

    Raises:
        ListenError: it cannot be bound.
    """
    path = listen.path
    with ExitStack() as stack:
        opened = open_unix_socket_file(
            path,
            mode=listen.mode,
            backlog=listen.backlog,
            user=listen.user,
            group=listen.group,
        )
        try:
            made = stack.enter_context(opened)
        except OSError as exc:
            problem = exc.strerror or str(exc)
            if exc.errno == errno.EADDRINUSE:
                problem += "; stop it, or choose another path"
            raise ListenError(f"cannot listen on unix:{path}: {problem}") from exc
        yield made


def check_owners(listen: ListenAddress) -> None:
    """Check that the user and the group of *listen* exist.

    Raises:
        ListenError: one does not.
    """
    try:
        user_number(listen.user)
        group_number(listen.group)
    except OSError as exc:
        address = declared_address(listen)
        raise ListenError(f"cannot listen on {address}: {exc.strerror}") from exc


def _bind(
    family: int,
    address: tuple[Any, ...],
    is_everywhere: bool,
    *,
    reuses: bool = False,
    backlog: int | None = None,
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Bind although connections of an earlier server are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuses:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Independent of net.ipv6.bindv6only: a literal "::" means IPv6 only.
            only = int(not is_everywhere)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(address)
        if backlog is not None:
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


async def _explain(listen: ListenAddress, problem: OSError) -> ListenError:
    reason = problem.strerror or str(problem)
    match problem.errno:
        case errno.EADDRINUSE:
            holder = await run_in_thread(_holder, listen.port)
            reason = f"port in use by {holder}; stop it, or choose another port"
        case errno.EADDRNOTAVAIL:
            reason = "no interface of this machine has this address; check the host"
        case errno.EACCES:
            reason = (
                "ports below net.ipv4.ip_unprivileged_port_start (1024) require the "
                "capability CAP_NET_BIND_SERVICE; choose a higher port, or let "
                "systemd open the socket"
            )
    return ListenError(f"cannot listen on {declared_address(listen)}: {reason}")


def _holder(port: int) -> str:
    """Return a description of the process that listens on *port*."""
    import psutil  # slow to import; only needed for this message

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN
            is_here = connection.laddr[1:] == (port,)
            if is_listener and is_here and connection.pid:
                if connection.pid == os.getpid():
                    return "this process"
                name = psutil.Process(connection.pid).name()
                return f"{name} (pid {connection.pid})"
    return "another process"


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
