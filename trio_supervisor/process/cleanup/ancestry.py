"""Find the ancestors of a process through /proc. Linux."""

from __future__ import annotations

import os
import signal
from typing import Final, NamedTuple

from attrs import frozen

from trio_supervisor.process.groups import IS_LINUX, has_variable

# Deeper trees do not occur between a shell and its programs.
_DEPTH: Final = 64
# An ancestor may exit while the tree is walked.
_TRIES: Final = 3


@frozen(kw_only=True)
class Ancestry:
    """The ancestors of a process, nearest first."""

    process_id: int
    ancestors: tuple[int, ...] = ()
    """Starts with the process itself; empty: it has exited."""
    groups: frozenset[int] = frozenset()
    """Process groups and sessions of the ancestors."""
    is_marked: bool = False
    """Whether one of them has the controller's marker in its environment."""

    @property
    def is_known(self) -> bool:
        """Whether any ancestor is known."""
        return bool(self.ancestors)


class _Links(NamedTuple):
    parent: int
    group: int
    session: int


def ancestry_of(
    process_id: int, root: int, marker: bytes, descriptor: int | None = None
) -> Ancestry | None:
    """Return the ancestors of *process_id*; None: unknown on this system.

    Args:
        root: The controller, at which the walk ends.
        marker: ``NAME=VALUE`` in the environment of the controller's children.
        descriptor: A pidfd of the process, to check at the end that its number was not
            reused.
    """
    if not IS_LINUX or process_id <= 0:  # 0: in another PID namespace
        return None
    for _ in range(_TRIES):
        if (ancestry := _walk(process_id, root, marker)) is None:
            continue
        if descriptor is not None and not _is_running(descriptor):
            break
        return ancestry
    return Ancestry(process_id=process_id)


def _walk(process_id: int, root: int, marker: bytes) -> Ancestry | None:
    ancestors: list[int] = []
    groups: set[int] = set()
    is_marked = False
    current = process_id
    while current > 0 and len(ancestors) < _DEPTH:
        if (links := _links_of(current)) is None:
            return None
        ancestors.append(current)
        if current == root:
            break
        groups |= {links.group, links.session}
        is_marked = is_marked or has_variable(current, marker)
        current = links.parent
    else:
        if current > 0:
            return None
    return Ancestry(
        process_id=process_id,
        ancestors=tuple(ancestors),
        groups=frozenset(groups),
        is_marked=is_marked,
    )


def _links_of(process_id: int) -> _Links | None:
    """Source: proc_pid_stat(5), fields 4 to 6, after the ``)`` of the name."""
    try:
        with open(f"/proc/{process_id}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
        return _Links(int(fields[1]), int(fields[2]), int(fields[3]))
    except (OSError, IndexError, ValueError):
        return None


def _is_running(descriptor: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def own_marker(name: str) -> bytes:
    """Return the variable *name* of this process as ``NAME=VALUE``; empty: not set."""
    value = os.environ.get(name)
    return b"" if value is None else os.fsencode(f"{name}={value}")
