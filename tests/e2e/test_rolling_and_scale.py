"""Test scaling, rolling restarts and lifetimes; other workers are not touched."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import os
import trio
from trio_supervisor import Application, Command, Service, Worker

async def work(worker: Worker) -> None:
    if os.path.exists("tmp/broken"):
        raise SystemExit(6)
    await trio.sleep(0.02)
    await worker.ready()
    await worker.stopping.wait()

application = Application([
    Service("web", work, count=4),
    Service("job", work, count=2, restart="never"),
    Service("old", work, count=3, max_lifetime=0.5),
    Service("none", work, count=0),
], max_restarts_concurrently=MOST)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    source = SERVICE.replace("max_lifetime=0.5", "max_lifetime=1000")
    with open_serving(source.replace("MOST", "None")) as serving:
        yield serving


def most_away(serving: Serving, since: int, service: str) -> int:
    """Return the maximum number of unavailable workers of *service*, by the log."""
    away: set[str] = set()
    most = 0
    for event in serving.select(since):
        if not event["name"].startswith(f"{service}."):
            continue
        if event.get("event") == "stopping":
            away.add(event["name"])
        elif event.get("event") == "ready":
            away.discard(event["name"])
        most = max(most, len(away))
    return most


def test_scale_up_and_down_keeps_other_workers(serving: Serving) -> None:
    before = serving.pids()

    up = serving.cli("scale", "web=6", "none=1")

    assert (up.returncode, up.stdout) == (0, "web has 6 workers\nnone has 1 worker\n")
    more = serving.pids()
    assert more.keys() - before.keys() == {"web.4", "web.5", "none.0"}
    assert {name: more[name] for name in before} == before
    shown = serving.cli("workers").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:7]] == [f"web.{i}" for i in range(6)]

    since = serving.mark()
    down = serving.cli("scale", "web=1", "none=0", "--json")

    assert json.loads(down.stdout)["counts"] == {"web": 1, "none": 0}
    after = serving.pids()
    assert after.keys() & {f"web.{i}" for i in range(6)} == {"web.0"}
    assert all(before[name] == process_id for name, process_id in after.items())
    stops = serving.select(since, event="stopping")
    assert {stop["cause"] for stop in stops} == {"scale"}
    assert len(serving.select(since, event="exited", is_planned=True)) == 6
    scaled = serving.wait_event(since=since, event="scaled", name="web")
    assert (scaled["before"], scaled["count"]) == (6, 1)
    assert serving.cli("scale", "web=4").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["ghost=2"], 1, "no service has the name 'ghost'"),
        (["web=10001"], 1, "expected 0 to 10000"),
        (["web=-1"], 2, "expected a whole number"),
        (["web"], 2, "expected SERVICE=N"),
        (["none=2"], 2, "service none is named twice"),
    ],
)
def test_invalid_scale_changes_nothing(
    serving: Serving, words: list[str], code: int, problem: str
) -> None:
    before = serving.pids()

    answer = serving.cli("scale", "none=1", *words)

    assert answer.returncode == code
    assert problem in answer.stderr
    assert serving.pids() == before


def test_scale_with_failing_worker_reports_it(serving: Serving) -> None:
    (serving.directory / "tmp" / "broken").touch()

    answer = serving.cli("scale", "job=3")

    (serving.directory / "tmp" / "broken").unlink()
    assert answer.returncode == 1
    assert "job.2 failed: exit code 6" in answer.stderr
    assert serving.worker("job.0")["state"] == "ready"
    assert serving.cli("scale", "job=2").returncode == 0


@pytest.mark.parametrize("most", [1, 2])
def test_rolling_restart_waits_until_each_is_ready(serving: Serving, most: int) -> None:
    before = serving.pids("web")
    since = serving.mark()

    done = serving.cli("restart", "web", "--rolling", "--max-unavailable", str(most))

    assert done.returncode == 0
    after = serving.pids("web")
    assert not {*before.values()} & {*after.values()}
    assert most_away(serving, since, "web") == most
    assert len(serving.select(since, event="exited", is_planned=True)) == 4


def test_rolling_restart_stops_at_failure(serving: Serving) -> None:
    """The other workers are not touched."""
    before = serving.pids("job")
    (serving.directory / "tmp" / "broken").touch()

    answer = serving.cli("restart", "job", "--rolling")

    (serving.directory / "tmp" / "broken").unlink()
    assert answer.returncode == 1
    assert "job.0 is not ready: failed, exit code 6" in answer.stderr
    assert serving.pids("job")["job.1"] == before["job.1"]
    assert serving.cli("start", "job").returncode == 0


def test_max_lifetime_replaces_in_turn_without_crash() -> None:
    # On a busy machine they need not all be ready at the same time.
    source = SERVICE.replace("MOST", "1")
    with open_serving(source, is_ready=False) as serving:
        serving.wait_event(event="supervisor_connected")
        for number in range(4):
            serving.wait_event(event="ready", name=f"web.{number}")
        since = serving.mark()
        for name in ("old.0", "old.1", "old.2"):
            stops = serving.wait_events(2, since=since, event="stopping", name=name)
            assert {stop["cause"] for stop in stops} == {"lifetime"}
            serving.wait_events(2, since=since, event="ready", name=name)
            started = serving.wait_events(2, since=since, event="started", name=name)
            # Jitter: up to a tenth less than declared; more if it waits for its turn.
            assert stops[1]["at"] - started[0]["at"] >= 0.44
        assert most_away(serving, since, "old") == 1
        exits = serving.select(since, event="exited")
        assert all(end["is_planned"] and end["returncode"] == 0 for end in exits)
        assert serving.wait_worker("old.0", state="ready")["reason"] == (
            "end of lifetime (max_lifetime=0.5 s)"
        )

        # A restart by the verb waits for its turn as well.
        since = serving.mark()
        assert serving.cli("restart", "web").returncode == 0
        assert most_away(serving, since, "web") == 1
        assert serving.terminate() == 0
