"""The one-line result of a health check."""

from __future__ import annotations

import pytest

from trio_supervisor.policy.health_text import describe_health


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "failing"),
        ({"ready": 3, "why": {"web.0": "starting"}}, "failing"),
        ({"not_ready": []}, "failing"),
        ({"not_ready": ["web", "db"]}, "failing, not ready: web, db"),
        (
            {"not_ready": ["web"], "why": {"web.0": "starting", "web.1": "backoff"}},
            "failing, not ready: web.0 (starting), web.1 (backoff)",
        ),
        (
            {"not_ready": ["a"], "why": {"a.0": "unready, no heartbeat (timeout)"}},
            "failing, not ready: a.0 (unready, no heartbeat, timeout)",
        ),
        ({"not_ready": [], "stopping": True}, "failing, shutting down"),
        ({"without_supervisor": 12.345}, "failing, no supervisor for 12.3 s"),
        ({"without_supervisor": 0.0}, "failing"),
    ],
    ids=str,
)
def test_describe_health_failing_names_the_reason(
    details: dict[str, object], text: str
) -> None:
    assert describe_health(False, details) == text
    assert describe_health(True, details) == "ok"


@pytest.mark.parametrize(
    ("limit", "text"),
    [(2, "a, b and 1 more"), (3, "a, b, c"), (None, "a, b, c")],
)
def test_describe_health_lists_at_most_limit_names(
    limit: int | None, text: str
) -> None:
    details: dict[str, object] = {"not_ready": ["a", "b", "c"]}
    assert describe_health(False, details, limit) == f"failing, not ready: {text}"


@pytest.mark.parametrize("value", [None, 1, "x", [1], {"a": 1}, True])
def test_describe_health_malformed_details_do_not_raise(value: object) -> None:
    details = dict.fromkeys(("not_ready", "why", "stopping"), value)
    assert describe_health(False, details).startswith("failing")
