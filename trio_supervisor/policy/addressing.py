"""Find workers by name, connection id or process id. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from trio_supervisor.errors import NoSuchWorkerError, SupervisorError

_SHOWN: Final = 10
"""Maximum number of names or candidates in an error message."""
_PID: Final = "pid-"


class AmbiguousNameError(SupervisorError):
    """Several workers have this name or process id; the message lists them."""


class NotManagedError(SupervisorError):
    """The worker registered on its own: the controller cannot restart or stop it."""


class Address(NamedTuple):
    """Name, process id and connection id of one worker."""

    name: str
    process_id: int | None
    connection_id: str | None
    is_managed: bool = True
    """Whether the controller started it."""

    def __str__(self) -> str:
        connection = f", connection {self.connection_id}" if self.connection_id else ""
        return f"{self.name} (pid {self.process_id}{connection})"


def process_id_of(word: str) -> int | None:
    """Return the process id in *word*, written as ``4711`` or ``pid-4711``."""
    digits = word.removeprefix(_PID)
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= 10
    return int(digits) if is_number else None


def find_all(word: str, known: Sequence[Address]) -> list[Address]:
    """Return all workers with the name, else the connection id, else the pid *word*."""
    if found := [one for one in known if one.name == word]:
        return found
    if found := [one for one in known if one.connection_id == word]:
        return found
    process_id = process_id_of(word)
    return [
        one for one in known if process_id is not None and one.process_id == process_id
    ]


def find_one(word: str, known: Sequence[Address]) -> Address:
    """Return the one worker that *word* identifies.

    During a reload two generations of a managed worker share a name: the first one is
    returned.

    Raises:
        NoSuchWorkerError: no worker matches; the message lists the known names.
        AmbiguousNameError: several workers match; the message lists them.
    """
    found = find_all(word, known)
    if not found:
        names = hint(one.name for one in known)
        raise NoSuchWorkerError(f"no worker has the name {word!r:.80}{names}")
    if len(found) > 1 and not found[0].is_managed:
        raise AmbiguousNameError(ambiguity(word, found))
    return found[0]


def ambiguity(word: str, found: Sequence[Address]) -> str:
    """Return the error message for a word that matches all of *found*."""
    candidates = "; ".join(str(one) for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"{word!r:.80} names {len(found)} workers; use a connection id or a pid: "
        f"{candidates}{more}"
    )


def hint(names: Iterable[str]) -> str:
    """Return the end of an error message, which lists the known *names*."""
    known = sorted(set(names))
    return f"; there are: {', '.join(known[:_SHOWN])}" if known else ""


def is_pattern(name: str) -> bool:
    """Return whether *name* is a pattern as in a shell: no name has such characters."""
    return any(character in name for character in "*?[")


def is_named(name: str, chosen: Iterable[str]) -> bool:
    """Return whether *name*, of a worker, is one of *chosen*: names and patterns.

    The name of a service means all of its workers.
    """
    service = name.rpartition(".")[0]
    return any(fnmatchcase(name, each) or service == each for each in chosen)
