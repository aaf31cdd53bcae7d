"""What a verb reports is true when it is reported, with real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.serving import Serving, open_serving

SERVICE = """
from trio_supervisor import Application, Backoff, Command

SLOW = Backoff(base=30, cap=30)
application = Application([
    Command("good", ["sleep", "1000"]),
    Command("bad", ["sh", "-c", "exit 3"], backoff=SLOW, intensity=None),
    Command("none", ["sleep", "1000"], count=0),
    # Good for one worker alone, and for its first life.
    Command("single", ["sh", "-c", "mkdir one && exec sleep 1000; exit 4"],
            backoff=SLOW, intensity=None),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, is_ready=False) as found:
        found.wait_event(event="ready", name="good.0")
        yield found


def test_all_ready_is_not_said_where_one_exits_at_once(serving: Serving) -> None:
    """Nor waited for in vain: the deadline has an exit code of its own."""
    result = serving.cli("status", "--wait-ready", "--timeout", "2")
    assert result.returncode == 4
    assert "not all workers were ready within 2 s" in result.stderr
    assert serving.select(event="all_ready") == []
    assert serving.select(event="ready", name="bad.0") == []


def test_a_start_of_what_exits_at_once_fails_and_is_undone(serving: Serving) -> None:
    serving.cli("stop", "bad")
    result = serving.cli("start", "bad")
    assert result.returncode == 1
    assert (
        "bad.0 did not stay up for 1 s (stable_for): exit code 3; stopped again: bad.0"
    ) in result.stderr
    assert serving.worker("bad.0")["state"] == "stopped"


def test_a_start_of_what_has_no_workers_says_so(serving: Serving) -> None:
    result = serving.cli("start", "none")
    assert result.returncode == 1
    assert "none has no workers to start (count=0)" in result.stderr


def test_a_scale_to_what_does_not_stay_up_is_undone(serving: Serving) -> None:
    result = serving.cli("scale", "single=3")
    assert result.returncode == 1
    assert "did not stay up for 1 s (stable_for): exit code 4" in result.stderr
    assert "scaled back to single=1" in result.stderr
    names = [worker["name"] for worker in serving.call("workers")["workers"]]
    assert [name for name in names if name.startswith("single")] == ["single.0"]


def test_a_scale_names_what_is_not_ready(serving: Serving) -> None:
    """Its number is as asked for; that is all that is said of it."""
    serving.cli("stop", "bad")
    result = serving.cli("scale", "bad=1", "good=2")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "bad has 1 worker",
        "good has 2 workers",
        "bad.0 is not ready: stopped",
    ]


def test_a_restart_to_what_exits_at_once_fails(serving: Serving) -> None:
    """The directory is there already."""
    result = serving.cli("restart", "single")
    assert result.returncode == 1
    assert "single.0 did not stay up for 1 s (stable_for)" in result.stderr
