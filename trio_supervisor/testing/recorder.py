"""Hear what a worker reports."""

from __future__ import annotations

from collections.abc import Callable

from trio_supervisor.process.notify.sd_notify import Notifier


class Recorder(Notifier):
    """Passes what a worker reports to a function instead of to a controller."""

    on_text: Callable[[str], None]

    def send(self, text: str) -> bool:
        """Pass *text* on."""
        self.on_text(text)
        return True
