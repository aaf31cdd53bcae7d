"""Workers for monitors to watch, without a supervisor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from attrs import define, field


@define(eq=False, kw_only=True)
class FakeWorker:
    """A `MonitoredWorker` that does what the test says."""

    name: str = "web.0"
    process_id: int = field(factory=os.getpid)
    connection_id: str = field(default="")
    uptime: float | None = 1000.0
    is_ready: bool = True
    is_managed: bool = True
    state: Mapping[str, Any] = field(factory=dict)
    refuses: Exception | None = None
    """What a restart ends in."""
    reasons: list[str] = field(factory=list, init=False)
    """Why it was restarted, each time."""

    def __attrs_post_init__(self) -> None:
        self.connection_id = self.connection_id or f"connection of {self.name}"

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Answer nothing."""
        return {}

    async def restart(self, reason: str) -> None:
        """Note it."""
        self.reasons.append(reason)
        if self.refuses is not None:
            raise self.refuses
        # The name is its successor's now, as at a real supervisor.
        self.name = f"pid-{self.process_id}"
