"""Test restart policies, backoff and the restart limit."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

POLICIES = """
import sys
from trio_supervisor import Application, Backoff, Service, SyncWorker

def ends(code: int, times: int, worker: SyncWorker) -> None:
    worker.ready()
    if worker.incarnation <= times:
        sys.exit(code)
    worker.stopping.wait()

def well(worker: SyncWorker) -> None: ends(0, 1, worker)
def badly(worker: SyncWorker) -> None: ends(3, 1, worker)
def five_times(worker: SyncWorker) -> None: ends(4, 5, worker)
def never(worker: SyncWorker) -> None: ends(0, 0, worker)

def raises(worker: SyncWorker) -> None:
    if worker.incarnation == 1:
        raise LookupError("the reason why")
    never(worker)

def sync(name, target, **settings):
    return Service(name, target, backend="sync", **settings)

application = Application(
    services=[
        sync("always-well", well),
        sync("always-badly", badly),
        sync("failure-well", well, restart="on-failure"),
        sync("failure-badly", badly, restart="on-failure"),
        sync("never-well", well, restart="never"),
        sync("never-badly", badly, restart="never"),
        sync("slower", five_times, backoff=Backoff(base=0.2, cap=0.4)),
        sync("at-once", five_times, backoff=None),
        sync("raises", raises),
        sync("calm", never, intensity=0),
        sync("none", never, count=0),
    ],
)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve services that exit on their own, each with a different policy."""
    with open_serving(POLICIES, is_ready=False) as serving:
        yield serving


@pytest.mark.parametrize(
    ("service", "code"),
    [("always-well", 0), ("always-badly", 3), ("failure-badly", 3)],
)
def test_restart_policy_restarts_worker(
    serving: Serving, service: str, code: int
) -> None:
    exited = serving.wait_event(event="exited", name=f"{service}.0")
    serving.wait_events(2, event="ready", name=f"{service}.0")

    assert (exited["returncode"], exited["next_step"]) == (code, "restarting")
    serving.wait_worker(f"{service}.0", state="ready", incarnation=2)


@pytest.mark.parametrize(
    ("service", "code", "state"),
    [
        ("failure-well", 0, "stopped"),
        ("never-well", 0, "stopped"),
        ("never-badly", 3, "failed"),
    ],
)
def test_restart_policy_does_not_restart_worker(
    serving: Serving, service: str, code: int, state: str
) -> None:
    exited = serving.wait_event(event="exited", name=f"{service}.0")
    serving.wait_event(event="supervisor_connected")

    policy = "never" if service.startswith("never") else "on-failure"
    assert exited["returncode"] == code
    assert exited["next_step"] == f'not restarting (restart="{policy}")'
    worker = serving.wait_worker(f"{service}.0", state=state, incarnation=1)
    assert (worker["process_id"], worker["connected"]) == (None, False)
    assert worker["last_exit"] == f"exit code {code}"


def delays(serving: Serving, name: str) -> list[int]:
    """Return the delays that were logged before each restart [ms]."""
    found = []
    for exited in serving.wait_events(5, event="exited", name=name):
        delay = re.fullmatch(
            r"restarting(?: in (\d+) ms \(backoff\))?", exited["next_step"]
        )
        assert delay
        found.append(int(delay[1] or 0))
    return found


def test_backoff_delays_restarts_in_a_row(serving: Serving) -> None:
    """The first is immediate; the next have random delays of up to 0.2 and 0.4 s."""
    announced = delays(serving, "slower.0")
    started = serving.wait_events(6, event="started", name="slower.0")

    assert announced[0] == 0
    for delay, most in zip(announced[1:], [200, 400, 400, 400], strict=True):
        assert 0 <= delay <= most
    assert len(set(announced)) > 2
    exited = serving.select(event="exited", name="slower.0")
    for end, delay, start in zip(exited, announced, started[1:], strict=True):
        assert start["at"] - end["at"] >= delay / 1000 - 0.05


def test_no_backoff_restarts_immediately(serving: Serving) -> None:
    assert delays(serving, "at-once.0") == [0, 0, 0, 0, 0]


def test_traceback_begins_in_application_code(serving: Serving) -> None:
    serving.wait_events(1, event="ready", name="raises.0")

    exited = serving.wait_event(event="exited", name="raises.0")
    printed = serving.select(name="raises.0", stream="stderr")
    lines = [line["message"] for line in printed]
    first = lines.index("raises.0 failed")
    assert lines[first + 1] == "Traceback (most recent call last):"
    assert f'File "{serving.directory}/service.py"' in lines[first + 2]
    assert "LookupError: the reason why" in lines[first + 3 : first + 7]
    assert exited["last_lines"][-1] == "LookupError: the reason why"


def test_planned_restarts_do_not_count(serving: Serving) -> None:
    """The worker has an intensity of 0."""
    for _ in range(3):
        assert serving.cli("restart", "calm").returncode == 0

    worker = serving.worker("calm.0")
    assert (worker["state"], worker["restarts"]) == ("ready", 3)


def test_start_failed_worker(serving: Serving) -> None:
    serving.wait_event(event="exited", name="never-badly.0")

    assert serving.cli("start", "never-badly").returncode == 0

    worker = serving.worker("never-badly.0")
    assert (worker["state"], worker["incarnation"]) == ("ready", 2)


@pytest.mark.parametrize("intensity", [0, 2])
def test_restart_limit_stops_everything(intensity: int) -> None:
    """The last line says which worker failed, and why."""
    source = f"""
import sys
from trio_supervisor import Application, Service, SyncWorker

def well(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

def badly(worker: SyncWorker) -> None:
    sys.exit(7)

application = Application(
    services=[
        Service("well", well, backend="sync", count=2),
        Service("badly", badly, backend="sync", intensity={intensity}, period=30,
                backoff=None, depends_on={{"well": "ready"}}),
    ],
)
"""
    with open_serving(source, is_ready=False) as serving:
        code = serving.wait_exit()

        assert code == 13
        ended = serving.select(event="exited", name="badly.0")
        assert len(ended) == intensity + 1
        limit = f"restart limit reached (intensity={intensity}, period=30 s)"
        why = f"{limit}; last exit: code 7"
        assert serving.wait_event(event="gave_up")["message"] == why
        assert serving.lines[-1] == f"trio-supervisor: badly.0: {why}"
        assert "Traceback" not in serving.text
        stopped = {e["name"] for e in serving.select(event="exited")}
        # On a busy machine the supervisor may not have run yet.
        assert stopped == {e["name"] for e in serving.select(event="started")}
        assert stopped >= {"badly.0", "well.0", "well.1"}
        assert serving.process_ids() == []
        assert serving.files() == set()
