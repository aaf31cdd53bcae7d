"""What a verb reports is true when it is reported, with real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving, run_cli, short_directory

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


WRONG = """
import functools
from trio_supervisor import Application, Service

async def asynchronous(worker): ...
def plain(worker): ...
def passing_on(worker):
    return plain(worker)
def lost(worker):
    return asynchronous(worker)

{services}
"""


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        (
            'Service("web", asynchronous, backend="sync")',
            "target: asynchronous of service 'web' is an async function, and "
            'backend="sync" calls a plain one',
        ),
        (
            'Service("web", functools.partial(plain))',
            "target: plain of service 'web' is a plain function, and backend=\"trio\" "
            "awaits an async one",
        ),
    ],
)
def test_a_target_that_its_backend_cannot_run_is_said_before_the_start(
    service: str, problem: str
) -> None:
    """With the line of the declaration."""
    with short_directory() as directory:
        source = WRONG.format(services=f"application = Application([{service}])")
        (directory / "service.py").write_text(source)
        result = run_cli("serve", "service.py", directory=directory)
    assert result.returncode == 10
    assert result.stderr.startswith("trio-supervisor: service.py, line 12: target: ")
    assert problem in result.stderr


def test_what_only_a_call_tells_is_said_by_the_worker() -> None:
    """A coroutine that nothing runs is no success."""
    services = """application = Application([
    Service("lost", lost, backend="sync", restart="never"),
    Service("none", passing_on, restart="never"),
])"""
    source = WRONG.format(services=services)
    with open_serving(source, is_ready=False) as serving:
        for name in ("lost.0", "none.0"):
            event = serving.wait_event(event="exited", name=name)
            assert event["returncode"] == 1
        serving.wait_line('which backend=\\"sync\\" does not run')
        serving.wait_line('which backend=\\"trio\\" cannot await')
