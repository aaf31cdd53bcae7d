"""The types of events: what ``event`` is in JSON. Pure."""

from __future__ import annotations

from typing import Final

EVENT_TYPES: Final = (
    "all_ready",
    "canary_failed",
    "canary_passed",
    "canary_started",
    "crash_loop_over",
    "denied",
    "evidence",
    "exited",
    "gave_up",
    "group_failed",
    "not_permitted",
    "not_started",
    "overloaded",
    "ready",
    "recovered",
    "reload_failed",
    "reloaded",
    "reloading",
    "run_left_out",
    "scaled",
    "serving",
    "shortage",
    "shortage_over",
    "shutting_down",
    "started",
    "still_failing",
    "stop_timeout",
    "stopped",
    "stopping",
    "strays",
    "stuck",
    "supervisor_connected",
    "supervisor_lost",
    "supervisor_picture_differed",
    "unready",
)
