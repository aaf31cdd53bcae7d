"""From the names that people give to the workers that they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.policy.addressing import is_pattern
from trio_supervisor.wire.brief import brief

T = TypeVar("T")


def choose(
    names: Iterable[str],
    by_name: Mapping[str, T],
    by_service: Mapping[str, Sequence[T]],
) -> list[T]:
    """Return what *names* (``web.0``, or ``web`` for all of it) mean, each once.

    A name with ``*``, ``?`` or ``[`` is a pattern as in a shell, for workers.

    Raises:
        NoSuchWorkerError: one of them means nothing; the message says which there are.
    """
    chosen: dict[int, T] = {}
    for name in names:
        if name in by_name:
            found: Sequence[T] = [by_name[name]]
        elif name in by_service:
            found = by_service[name]
        elif is_pattern(name):
            found = [item for each, item in by_name.items() if fnmatchcase(each, name)]
        else:
            found = []
        if not (found or name in by_service):
            known = ", ".join(by_service) or "none"
            what = "matches" if is_pattern(name) else "has the name"
            hint = did_you_mean(name, [*by_service, *by_name])
            raise NoSuchWorkerError(
                f"no worker or service {what} {brief(name)}{hint}; services: {known}"
            )
        chosen.update((id(item), item) for item in found)
    return list(chosen.values())
