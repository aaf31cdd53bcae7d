"""From the names that people give to the workers that they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.wire.brief import brief

T = TypeVar("T")


def choose(
    names: Iterable[str],
    by_name: Mapping[str, T],
    by_service: Mapping[str, Sequence[T]],
) -> list[T]:
    """Return what *names* (``web.0``, or ``web`` for all of it) mean, each once.

    Raises:
        NoSuchWorkerError: one of them means nothing; the message says which there are.
    """
    chosen: dict[int, T] = {}
    for name in names:
        if name in by_name:
            found: Sequence[T] = [by_name[name]]
        elif name in by_service:
            found = by_service[name]
        else:
            known = ", ".join(by_service) or "none"
            raise NoSuchWorkerError(
                f"no worker or service has the name {brief(name)}; services: {known}"
            )
        chosen.update((id(item), item) for item in found)
    return list(chosen.values())
