"""Which listening sockets an application has, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping

from trio_supervisor.process.sockets import SocketSet
from trio_supervisor.spec import (
    Application,
    Listen,
)


def socket_keys(
    application: Application,
) -> tuple[dict[str, Listen], dict[str, dict[str, str]]]:
    """Return all sockets of *application*, and per service which are its own.

    Services that name the same address alike share it. Where they mean different ones
    by one name, the service's name goes before it.
    """
    meanings: dict[str, set[str]] = {}
    for service in application.services:
        for name, listen in service.sockets.items():
            meanings.setdefault(name, set()).add(str(listen))
    listens: dict[str, Listen] = {}
    keys: dict[str, dict[str, str]] = {}
    for service in application.services:
        for name, listen in service.sockets.items():
            key = name if len(meanings[name]) == 1 else f"{service.name}-{name}"
            listens[key] = listen
            keys.setdefault(service.name, {})[name] = key
    return listens, keys


def socket_descriptors(
    keys: Mapping[str, str], sockets: SocketSet, index: int
) -> dict[str, int]:
    """Return the descriptors of a worker's sockets, by its own names of them."""
    found = sockets.descriptors(keys.values(), index)
    return {name: found[key] for name, key in keys.items()}
