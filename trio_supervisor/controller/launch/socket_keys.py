"""Which listening sockets an application has, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping

from trio_supervisor.application import (
    Application,
    Listen,
)
from trio_supervisor.process.sockets.sockets import SocketSet


def socket_keys(
    application: Application,
) -> tuple[dict[str, Listen], dict[str, dict[str, str]]]:
    """Return all sockets of *application*, and per service which are its own.

    Services that name the same address share it, by whatever names. The key of a socket
    is the name that it has first; where another socket is called that, too, the service
    that names it first goes before it.
    """
    first: dict[object, tuple[str, str]] = {}
    called: dict[str, set[object]] = {}
    for service in application.services:
        for name, listen in service.sockets.items():
            address = _address(service.name, name, listen)
            first.setdefault(address, (service.name, name))
            called.setdefault(name, set()).add(address)
    listens: dict[str, Listen] = {}
    keys: dict[str, dict[str, str]] = {}
    for service in application.services:
        for name, listen in service.sockets.items():
            address = _address(service.name, name, listen)
            owner, key = first[address]
            if len(called[key]) > 1:
                key = f"{owner}-{key}"
            listens[key] = listen
            keys.setdefault(service.name, {})[name] = key
    return listens, keys


def _address(service: str, name: str, listen: Listen) -> object:
    """Return what is equal for the same socket; a free port is each time another."""
    is_free = listen.kind == "tcp" and not listen.port
    return (service, name) if is_free else str(listen)


def socket_descriptors(
    keys: Mapping[str, str], sockets: SocketSet, index: int
) -> dict[str, int]:
    """Return the descriptors of a worker's sockets, by its own names of them."""
    found = sockets.descriptors(keys.values(), index)
    return {name: found[key] for name, key in keys.items()}
