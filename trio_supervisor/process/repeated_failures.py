"""Log a failure that repeats twice: when it begins, and when it is over."""

from __future__ import annotations

import logging
import time

from attrs import define, field


@define(eq=False)
class RepeatedFailures:
    """What goes wrong with one thing again and again.

    Each cause is logged once until the thing works again.
    """

    _logger: logging.Logger
    _what: str
    """Begins the line that says that it works again."""
    _causes: set[str] = field(factory=set, init=False)
    _count: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)
    """By the system's monotonic clock [s]."""

    def failed(self, cause: str, level: int = logging.ERROR) -> None:
        """Log *cause*, unless that was done since it worked last."""
        if not self._causes:
            self._since = time.monotonic()
        self._count += 1
        if cause not in self._causes:
            self._causes.add(cause)
            self._logger.log(level, "%s", cause)

    def worked(self) -> None:
        """Log that it works again, if it had failed."""
        if self._causes:
            seconds = time.monotonic() - self._since
            times = "once" if self._count == 1 else f"{self._count} times"
            self._logger.warning(
                "%s again (failed %s in %.1f s)", self._what, times, seconds
            )
            self._causes.clear()
            self._count = 0
