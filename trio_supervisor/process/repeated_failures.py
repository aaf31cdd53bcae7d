"""Log repeated failures only when they begin and when they are over."""

from __future__ import annotations

import logging
import time

from attrs import define, field


@define(eq=False)
class RepeatedFailures:
    """Log of one operation that may fail repeatedly.

    Each cause is logged once until the operation succeeds again.
    """

    _logger: logging.Logger
    _what: str
    """Beginning of the line that reports that it succeeds again."""
    _causes: set[str] = field(factory=set, init=False)
    _count: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)
    """By the system's monotonic clock [s]."""

    def failed(self, cause: str, level: int = logging.ERROR) -> None:
        """Log *cause*, unless it was logged since the last success."""
        if not self._causes:
            self._since = time.monotonic()
        self._count += 1
        if cause not in self._causes:
            self._causes.add(cause)
            self._logger.log(level, "%s", cause)

    def worked(self) -> None:
        """Log that it succeeds again, if it had failed."""
        if self._causes:
            seconds = time.monotonic() - self._since
            times = "once" if self._count == 1 else f"{self._count} times"
            self._logger.warning(
                "%s again (failed %s in %.1f s)", self._what, times, seconds
            )
            self._causes.clear()
            self._count = 0
