"""Test that the list of event types is complete."""

from __future__ import annotations

from typing import get_args

from trio_supervisor.controller.events import Event
from trio_supervisor.policy.event_types import EVENT_TYPES


def test_event_types_are_those_of_the_events() -> None:
    assert sorted(event.kind for event in get_args(Event)) == list(EVENT_TYPES)
