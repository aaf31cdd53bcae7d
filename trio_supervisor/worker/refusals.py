"""Log why a worker is not registered, once."""

from __future__ import annotations

import logging
import os

from attrs import define, field

from trio_supervisor.errors import SupervisorError

logger = logging.getLogger("trio_supervisor.worker")


@define(eq=False)
class Refusals:
    """Refused registrations of the worker *name*; only the first one is logged."""

    _name: str
    _has_warned: bool = field(default=False, init=False)

    def not_permitted(self, path: str, exc: PermissionError) -> None:
        """Warn that the socket cannot be used, as after a setuid()."""
        self._warn(
            "%s is not registered: user %d cannot connect to %s (%s); declare the user "
            "of its service instead of changing it in the worker (user=%d); retrying",
            *(self._name, os.geteuid(), path, exc.strerror, os.geteuid()),
        )

    def refused(self, exc: SupervisorError) -> None:
        """Warn that the supervisor did not accept the registration."""
        self._warn("%s is not registered: %s; retrying", self._name, exc)

    def _warn(self, text: str, *values: object) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(text, *values)
