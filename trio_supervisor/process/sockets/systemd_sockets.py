"""Adopt listening sockets from a service manager, as in sd_listen_fds(3).

A service file needs no change for socket activation: sockets from systemd are matched
with the declared ones, by name and then by address.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any, Final, Self

from attrs import define, field

from trio_supervisor.errors import ListenError
from trio_supervisor.process.sockets.bind import (
    ListenAddress,
    bound_address,
    declared_address,
    resolve,
)

logger = logging.getLogger(__name__)

# SD_LISTEN_FDS_START of sd-daemon.h.
FIRST_DESCRIPTOR: Final = 3


@define(eq=False)
class AdoptedDescriptors:
    """The descriptors passed by a service manager that are not taken yet."""

    _left: list[tuple[str, int]] = field(factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to take."""
        return not self._left

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return the descriptors that *environ* lists for this process.

        Children do not inherit them from now on. Call it once: the object owns them.
        """
        count = environ.get("LISTEN_FDS", "")
        if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
            return cls()
        names = environ.get("LISTEN_FDNAMES", "").split(":")
        left = []
        for index in range(int(count)):
            descriptor = FIRST_DESCRIPTOR + index
            name = names[index] if index < len(names) else ""
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                logger.warning(
                    "LISTEN_FDS: descriptor %d is not open; ignoring it and later ones",
                    descriptor,
                )
                break
            left.append((name, descriptor))
        return cls(left)

    async def take_sockets(
        self, listens: Mapping[str, ListenAddress]
    ) -> dict[str, socket.socket]:
        """Return the sockets that are declared; the caller closes them.

        Raises:
            ListenError: one has a declared name but is not a listening stream socket.
                None is taken then.
        """
        matches: dict[str, tuple[str, int]] = {}
        free = list(self._left)
        for name, listen in listens.items():
            named = [entry for entry in free if entry[0] == name]
            here = [entry for entry in named if await _is_at(entry[1], listen)]
            if found := (here or named):
                if _address(found[0][1]) is None:
                    raise ListenError(
                        f"descriptor {name!r} from the service manager is not a "
                        f"listening stream socket; its unit needs ListenStream= and "
                        f"Accept=no"
                    )
                matches[name] = found[0]
                free.remove(found[0])
        for name, listen in listens.items():
            if name not in matches:
                for entry in free:
                    if await _is_at(entry[1], listen):
                        matches[name] = entry
                        free.remove(entry)
                        break
        self._left = free
        return {
            name: socket.socket(fileno=descriptor)
            for name, (_, descriptor) in matches.items()
        }

    def close(self) -> None:
        """Close and log the descriptors that were not taken."""
        for name, descriptor in self._left:
            address = _address(descriptor)
            logger.warning(
                "no declared socket matches descriptor %r from the service manager "
                "(%s); closing it",
                name,
                "not a listening stream socket" if address is None else address[1],
            )
            os.close(descriptor)
        self._left = []


async def _is_at(descriptor: int, listen: ListenAddress) -> bool:
    """Return whether *descriptor* listens on the address of *listen*."""
    if (found := _address(descriptor)) is None:
        return False
    name, text = found
    if listen.kind == "unix":
        return isinstance(name, str | bytes) and _is_same_file(name, listen.path)
    if isinstance(name, str | bytes) or not listen.port:
        return False
    if f"tcp:{text}" == f"tcp:{declared_address(listen)}":
        return True  # literally equal: no host has to be resolved
    return any(address[:2] == name[:2] for _, address in await resolve(listen))


def _address(descriptor: int) -> tuple[Any, str] | None:
    """Return the address of *descriptor*; None: not a listening stream socket."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        is_stream = sock.type == socket.SOCK_STREAM
        if not is_stream or not sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            return None
        return sock.getsockname(), bound_address(sock)
    except OSError:
        return None
    finally:
        sock.detach()


def _is_same_file(name: str | bytes, path: str) -> bool:
    return os.path.realpath(os.fsdecode(name)) == os.path.realpath(path)
