"""Test groups, give_up_on, and the end of the application."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kits.serving import Serving, open_serving

GROUPS = """
from trio_supervisor import Application, Group, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

def service(name, **options):
    return Service(name, work, backoff=None, **options)

application = Application([
    Group([service("a"), service("b", count=2), service("c")],
          strategy="one_for_all", name="together"),
    Group([service("d"), service("e"), service("f")],
          strategy="rest_for_one", name="rest"),
    Group([
        service("outer"),
        Group([service("g"), service("h", intensity=0)], intensity=1, name="inner"),
    ], strategy="one_for_all", name="nest"),
    service("apart"),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(GROUPS) as serving:
        yield serving


def crash(serving: Serving, name: str, again: set[str]) -> dict[str, int]:
    """Kill a worker; wait until all of *again* are ready again; return what runs."""
    since = serving.mark()
    before = serving.pids()
    serving.kill(name)
    for other in again:
        serving.wait_event(since=since, event="ready", name=other)
    serving.when_ready()
    after = serving.pids()
    assert {n for n in after if after[n] != before[n]} == again
    exits = serving.select(since, event="exited")
    unplanned = [event["name"] for event in exits if not event["is_planned"]]
    assert unplanned == [name]
    return after


def test_one_for_all_restarts_whole_group(serving: Serving) -> None:
    """All workers of the group have exited before the first one starts again."""
    since = serving.mark()

    crash(serving, "b.1", {"a.0", "b.0", "b.1", "c.0"})

    last_exit = max(e["at"] for e in serving.select(since, event="exited"))
    first_start = min(e["at"] for e in serving.select(since, event="started"))
    assert last_exit <= first_start
    stopping = serving.wait_event(since=since, event="stopping", name="a.0")
    assert (stopping["cause"], stopping["reason"]) == ("group", "b.1 crashed")
    asked = [event["name"] for event in serving.select(since, event="stopping")]
    assert asked == ["c.0", "b.0", "a.0"]
    reasons = {w["name"]: w["reason"] for w in serving.call("workers")["workers"]}
    assert reasons["a.0"] == "restart with its group: b.1 crashed"
    assert reasons["b.1"] == "killed by SIGKILL (sent from outside)"


def test_rest_for_one_restarts_later_children(serving: Serving) -> None:
    crash(serving, "e.0", {"e.0", "f.0"})
    crash(serving, "f.0", {"f.0"})
    since = serving.mark()
    crash(serving, "d.0", {"d.0", "e.0", "f.0"})
    started = [event["name"] for event in serving.select(since, event="started")]
    assert started == ["d.0", "e.0", "f.0"]
    # In such a group each child waits for the one before to be ready.
    ready = {e["name"]: e["at"] for e in serving.select(since, event="ready")}
    begun = {e["name"]: e["at"] for e in serving.select(since, event="started")}
    assert ready["d.0"] <= begun["e.0"]
    assert ready["e.0"] <= begun["f.0"]


def test_one_for_one_restarts_nothing_else(serving: Serving) -> None:
    crash(serving, "apart.0", {"apart.0"})


def test_failed_group_restarts_enclosing_group(serving: Serving) -> None:
    """The inner group tolerates one crash, which restarts nothing else."""
    crash(serving, "g.0", {"g.0"})
    since = serving.mark()
    crash(serving, "g.0", {"g.0", "h.0", "outer.0"})
    failed = serving.wait_event(since=since, event="group_failed")
    assert failed["name"] == "inner"
    assert set(failed["services"]) == {"g", "h", "outer"}
    # The counts start again; a worker past its own limit fails its whole group.
    since = serving.mark()
    crash(serving, "h.0", {"g.0", "h.0", "outer.0"})
    assert serving.wait_event(since=since, event="group_failed")["name"] == "inner"


def test_planned_restarts_do_not_count_towards_intensity(serving: Serving) -> None:
    """The service has an intensity of 0."""
    for _ in range(3):
        assert serving.cli("restart", "h").returncode == 0
    worker = serving.wait_worker("h.0", state="ready")
    assert worker["reason"] == "restart requested"


def test_crash_past_outermost_limit_stops_everything(serving: Serving) -> None:
    """The group's parent is the application, which has no limit of its own."""
    source = GROUPS.replace('"apart"),\n])', '"apart"),\n], intensity=1)')
    with open_serving(source) as other:
        crash(other, "apart.0", {"apart.0"})
        other.kill("apart.0")

        assert other.wait_exit() == 13
        gave_up = other.wait_event(event="gave_up")
        assert "application" in gave_up["problem"]
        assert other.lines[-1].startswith("trio-supervisor: ")
        assert other.process_ids() == []


ENDINGS = """
import os
import sys
from contextlib import suppress
from trio_supervisor import Application, Command, Service, SyncWorker, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

def ends(name, code, **options):
    arguments = ["sh", "-c", f"read line < tmp/{name}; exit {code}"]
    if code < 0:
        arguments[-1] = f"read line < tmp/{name}; kill {code} $$"
    with suppress(FileExistsError):  # another import may be first
        os.mkfifo(f"tmp/{name}")
    return Command(name, arguments, backoff=None, **options)

application = Application([
    Service("work", work),
    ends("good", 3, restart="on-failure", success_exit_codes=(0, 3)),
    ends("bad", 4, restart="on-failure", success_exit_codes=(0, 3)),
    ends("hopeless", 78, give_up_on=(78, "SIGUSR1")),
    ends("shot", -10, give_up_on=(78, "SIGUSR1")),
    SIGNIFICANT
], AUTO)
"""


def let_end(serving: Serving, name: str) -> None:
    """Let the command *name* read its line and exit."""
    with (serving.directory / "tmp" / name).open("w") as pipe:
        pipe.write("\n")


@contextmanager
def open_endings(significant: str = "", auto: str = "any") -> Iterator[Serving]:
    """Serve commands that exit when a line is written to them."""
    source = ENDINGS.replace("SIGNIFICANT", significant)
    source = source.replace("AUTO", f"auto_shutdown={auto!r}")
    with open_serving(source, is_ready=False) as serving:
        yield serving


def test_success_exit_codes_and_give_up_on() -> None:
    with open_endings() as serving:
        serving.wait_event(event="supervisor_connected")
        for name in ("good", "bad", "hopeless", "shot"):
            let_end(serving, name)

        good = serving.wait_event(event="exited", name="good.0")
        assert (good["returncode"], good["next_step"]) == (
            3,
            'not restarting (restart="on-failure")',
        )
        assert not good["is_failure"]
        serving.wait_worker("good.0", state="stopped", last_exit="exit code 3")
        bad = serving.wait_event(event="exited", name="bad.0")
        assert (bad["returncode"], bad["next_step"]) == (4, "restarting")
        serving.wait_events(2, event="started", name="bad.0")
        for name, code in (("hopeless.0", 78), ("shot.0", -signal.SIGUSR1)):
            end = serving.wait_event(event="exited", name=name)
            assert end["returncode"] == code
            assert end["next_step"] == "not restarting (give_up_on)"
            serving.wait_worker(name, state="failed", restarts=0)
        serving.wait_worker("work.0", state="ready")
        assert serving.terminate() == 0


ONE = 'ends("one", {}, restart="never", significant=True),'
TWO = 'ends("two", {}, restart="never", significant=True),'


@pytest.mark.parametrize(
    ("code", "exit_code"), [(0, 0), (5, 15)], ids=["well", "badly"]
)
def test_auto_shutdown_any_ends_with_first(code: int, exit_code: int) -> None:
    with open_endings(ONE.format(code) + TWO.format(0)) as serving:
        serving.wait_event(event="ready", name="one.0")
        serving.wait_event(event="ready", name="work.0")

        let_end(serving, "one")

        assert serving.wait_exit() == exit_code
        over = serving.wait_event(event="shutting_down")
        assert over["reason"] == "significant service one finished"
        assert serving.select(event="exited", name="work.0", returncode=0)
        assert serving.select(event="exited", name="two.0", is_planned=True)
        last = serving.lines[-1]
        assert ("one.0 of a significant service failed (exit code 5)" in last) == bool(
            code
        )
        assert serving.process_ids() == []


def test_auto_shutdown_all_ends_with_last() -> None:
    with open_endings(ONE.format(0) + TWO.format(0), auto="all") as serving:
        serving.wait_event(event="ready", name="two.0")
        serving.wait_event(event="ready", name="one.0")

        let_end(serving, "one")
        serving.wait_event(event="exited", name="one.0")
        serving.wait_event(event="ready", name="work.0")
        assert serving.cli("stop", "work").returncode == 0
        assert not serving.select(event="shutting_down")
        # A stop by the verb does not count as an exit.
        assert serving.cli("restart", "two").returncode == 0
        let_end(serving, "two")

        assert serving.wait_exit() == 0
        assert serving.select(event="shutting_down")
