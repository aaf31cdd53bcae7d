"""Clients that connect, and make no call: told once, then left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define, field

# Each holds a descriptor, and a buffer or two.
_KEPT: Final = 64
_REMEMBERED: Final = 1024


@define(eq=False)
class QuietClients:
    """Which processes have been told that their connection made no call.

    A Ruby client that only waits connects again as soon as it is hung up on. It is told
    the first time; its next connection stays open, within a bound on such connections.
    """

    _told: dict[int, None] = field(factory=dict, init=False)
    """Process ids, the oldest first."""
    _kept: int = field(default=0, init=False)

    def tolerates(self, process_id: int | None) -> bool:
        """Say whether a quiet connection of that process may stay open.

        If not, the caller tells the process and hangs up.
        """
        if process_id is None:
            return False
        if process_id in self._told:
            return self._kept < _KEPT
        self._told[process_id] = None
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return False

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a quiet connection for the length of the block."""
        self._kept += 1
        try:
            yield
        finally:
            self._kept -= 1
