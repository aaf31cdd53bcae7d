"""Receives all events and spans, such as to export traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from trio_supervisor.controller.events import Event
from trio_supervisor.wire.controller_messages import CallSpan


@define(eq=False)
class Observer:
    """Functions that are called in the event loop, and must not block it."""

    on_event: Callable[[Event], None] = field(default=lambda _: None, init=False)
    on_spans: Callable[[Sequence[CallSpan], int], None] = field(
        default=lambda *_: None, init=False
    )
    """With calls that the supervisor has answered, and how many it left out."""
