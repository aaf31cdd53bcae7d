"""Names that represent application code where it is not imported. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from attrs import frozen


@frozen
class TargetName:
    """The name of a target that is not imported in this process."""

    text: str
    """``module:qualified.name``, or the ``repr`` of the target."""

    def __call__(self, *_: object) -> NoReturn:
        raise TypeError(f"{self.text} is only a name")

    def __str__(self) -> str:
        return self.text


@frozen
class MonitorName:
    """The name of a monitor, which runs in the supervisor process."""

    text: str
    """``module:QualifiedName`` of the monitor's class."""
    interval: float = 0.0

    def __str__(self) -> str:
        return self.text

    def register(self, worker: Any) -> None:
        """Raise TypeError: the monitor is not in this process."""
        self._refuse()

    def remove(self, worker: Any) -> None:
        """Raise TypeError: the monitor is not in this process."""
        self._refuse()

    async def run_once(self) -> None:
        """Raise TypeError: the monitor is not in this process."""
        self._refuse()

    def status(self) -> Mapping[str, object]:
        """Raise TypeError: the monitor is not in this process."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(f"{self.text} is only a name")
