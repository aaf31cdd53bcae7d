"""What stands for application code in a process that does not import it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from attrs import frozen


@frozen
class TargetName:
    """Stands for a target that is not imported here; not to be called."""

    text: str
    """``module:qualified.name``, or how its ``repr`` shows it."""

    def __call__(self, *_: object) -> NoReturn:
        raise TypeError(f"{self.text} is only a name")

    def __str__(self) -> str:
        return self.text


@frozen
class MonitorName:
    """Stands for a monitor, which runs in the supervisor; not to be called."""

    text: str
    """``module:QualifiedName`` of its class."""
    interval: float = 0.0

    def __str__(self) -> str:
        return self.text

    def register(self, worker: Any) -> None:
        """Refuse: the monitor is not here."""
        self._refuse()

    def remove(self, worker: Any) -> None:
        """Refuse: the monitor is not here."""
        self._refuse()

    async def run_once(self) -> None:
        """Refuse: the monitor is not here."""
        self._refuse()

    def status(self) -> Mapping[str, object]:
        """Refuse: the monitor is not here."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(f"{self.text} is only a name")
