"""One look into the memory of this process at a time."""

from __future__ import annotations

import threading
from typing import Final

from attrs import define, field

from trio_supervisor.errors import BusyError

# The collector that a sample steers belongs to the process, and so does this.
_lock: Final = threading.Lock()
_holders: Final[list[str]] = []


@define(eq=False)
class Turn:
    """The right to look, until `end`; made by `take_turn`."""

    _is_over: bool = field(default=False, init=False)

    def end(self) -> None:
        """Let the next one. Doing it again does nothing."""
        if not self._is_over:
            self._is_over = True
            _holders.clear()
            _lock.release()


def take_turn(name: str) -> Turn:
    """Return the right to look, for what is called *name*; at once or not at all.

    Raises:
        BusyError: somebody else has it.
    """
    if not _lock.acquire(blocking=False):
        running = ", ".join(_holders) or "another look"
        raise BusyError(f"a {running} of this process is under way: try again later")
    _holders.append(name)
    return Turn()
