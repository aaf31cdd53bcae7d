"""Test what `status` says of a canary."""

from __future__ import annotations

from typing import Any

from trio_supervisor.cli.status import canary_lines, status_text


def worker(name: str, **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"name": name, "service": name.partition(".")[0]}
    base |= {"process_id": 7, "status": "", "generation": 1, "is_managed": True}
    return base | {"state": "ready", "last_exit": "", "canary": None} | fields


def test_canaries_are_named_with_their_times() -> None:
    canary = {"generation": 2, "canary": {"since": 100.0, "until": 160.0}}
    found = [
        worker("web.0"),
        worker("jobs.1", **canary),
        worker("web.2"),
        worker("web.2", **canary),
    ]
    assert list(canary_lines(found, 112.0)) == [
        "canary of generation 2: web.2, jobs.1; compared with the previous generation "
        "for 12.0s, 48.0s left"
    ]
    assert next(canary_lines(found, 170.0)).endswith("0.0s left")
    assert list(canary_lines([worker("web.0")], 112.0)) == []


def test_row_of_a_canary_says_so() -> None:
    canary = {"canary": {"since": 100.0, "until": 160.0}, "reason": "reload"}
    assert status_text(worker("web.2", **canary)) == "(canary)"
    crashed = {**canary, "crashes": 2, "last_exit": "exit code 1", "reason": ""}
    assert status_text(worker("web.2", **crashed)) == (
        "(exit code 1, 2 times in a row)"
    )
