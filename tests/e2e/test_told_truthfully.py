"""Verbs report success only when it is true, with real processes."""

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
    # Works for one worker only, and only for its first process.
    Command("single", ["sh", "-c", "mkdir one && exec sleep 1000; exit 4"],
            backoff=SLOW, intensity=None),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, is_ready=False) as found:
        found.wait_event(event="ready", name="good.0")
        yield found


def test_wait_ready_with_crashing_worker_times_out(serving: Serving) -> None:
    """The deadline has an exit code of its own."""
    result = serving.cli("status", "--wait-ready", "--timeout", "2")
    assert result.returncode == 4
    assert "not all workers were ready within 2 s" in result.stderr
    assert serving.select(event="all_ready") == []
    assert serving.select(event="ready", name="bad.0") == []


def test_start_of_crashing_worker_fails_and_is_undone(serving: Serving) -> None:
    serving.cli("stop", "bad")
    result = serving.cli("start", "bad")
    assert result.returncode == 1
    assert (
        "bad.0 did not stay up for 1 s (stable_for): exit code 3; stopped again: bad.0"
    ) in result.stderr
    assert serving.worker("bad.0")["state"] == "stopped"


def test_start_of_service_with_count_0_fails(serving: Serving) -> None:
    result = serving.cli("start", "none")
    assert result.returncode == 1
    assert "none has no workers to start (count=0)" in result.stderr


def test_scale_with_crashing_worker_is_undone(serving: Serving) -> None:
    result = serving.cli("scale", "single=3")
    assert result.returncode == 1
    assert "did not stay up for 1 s (stable_for): exit code 4" in result.stderr
    assert "scaled back to single=1" in result.stderr
    names = [worker["name"] for worker in serving.call("workers")["workers"]]
    assert [name for name in names if name.startswith("single")] == ["single.0"]


def test_scale_names_workers_that_are_not_ready(serving: Serving) -> None:
    """The new count is reached; not ready is not a failure."""
    serving.cli("stop", "bad")
    result = serving.cli("scale", "bad=1", "good=2")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "bad has 1 worker",
        "good has 2 workers",
        "bad.0 is not ready: stopped",
    ]


def test_restart_of_crashing_worker_fails(serving: Serving) -> None:
    """Its second process exits, for the directory exists already."""
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
def test_target_of_wrong_kind_is_rejected_before_start(
    service: str, problem: str
) -> None:
    """The message names the line of the declaration."""
    with short_directory() as directory:
        source = WRONG.format(services=f"application = Application([{service}])")
        (directory / "service.py").write_text(source)
        result = run_cli("serve", "service.py", directory=directory)
    assert result.returncode == 10
    assert result.stderr.startswith("trio-supervisor: service.py, line 12: target: ")
    assert problem in result.stderr


def test_target_that_returns_a_coroutine_fails_in_the_worker() -> None:
    """A coroutine that is never awaited is a failure."""
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
