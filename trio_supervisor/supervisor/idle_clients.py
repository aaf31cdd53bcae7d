"""Limit the clients that connect and make no call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define, field

# Each of them costs a descriptor and some buffers.
_MAX_IDLE: Final = 64
_REMEMBERED: Final = 1024


@define(eq=False)
class IdleClients:
    """Idle connections that may stay open.

    A Ruby client that only waits reconnects as soon as its connection is closed. The
    first idle connection of a process is therefore closed with an error; later ones
    stay open, at most 64 of all processes together.
    """

    _warned: dict[int, None] = field(factory=dict, init=False)
    """Process ids whose first idle connection was closed, oldest first."""
    _idle: int = field(default=0, init=False)

    def may_stay(self, process_id: int | None) -> bool:
        """Return whether an idle connection of that process may stay open.

        If it may not, the caller reports the error to the process and hangs up.
        """
        if process_id is None:
            return False
        if process_id in self._warned:
            return self._idle < _MAX_IDLE
        self._warned[process_id] = None
        if len(self._warned) > _REMEMBERED:
            del self._warned[next(iter(self._warned))]
        return False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count an idle connection for the length of the block."""
        self._idle += 1
        try:
            yield
        finally:
            self._idle -= 1
