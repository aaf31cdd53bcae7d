"""Test a service in a crash loop beside healthy ones, with real processes."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import os
from trio_supervisor import Application, Command, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

def moody(worker: SyncWorker) -> None:
    if not os.path.exists("tmp/database"):
        raise ConnectionError("no database")
    work(worker)

def flaps(worker: SyncWorker) -> None:
    worker.ready()
    raise SystemExit(7)

application = Application([
    Command("bad", ["sh", "-c", "echo first; echo cannot find it >&2; exit 3"]),
    Service("moody", moody, backend="sync"),
    Service("flaps", flaps, backend="sync"),
    Service("needs", work, backend="sync", depends_on={"moody": "ready"}),
    Service("good", work, backend="sync", count=2),
])
"""
IN_LOOP = 5


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    words = ("--http", "127.0.0.1:0")
    with open_serving(SERVICE, is_ready=False, words=words) as serving:
        serving.wait_event(event="supervisor_connected")
        for name in ("bad.0", "moody.0", "flaps.0"):
            wait_crashes(serving, name, IN_LOOP)
        yield serving


def wait_crashes(serving: Serving, name: str, least: int) -> None:
    what = f"{least} crashes of {name}"
    serving.until(lambda: serving.worker(name)["crashes"] >= least, what)


def wait_backoff(serving: Serving, name: str) -> dict[str, object]:
    return serving.wait_worker(name, state="backoff")


def test_crash_loop_leaves_other_workers_running(serving: Serving) -> None:
    """The number of crashes exceeds the former default limit."""
    wait_crashes(serving, "bad.0", 11)
    for name in ("good.0", "good.1"):
        assert serving.worker(name)["state"] == "ready"
        assert serving.worker(name)["incarnation"] == 1
    assert serving.process.poll() is None


def test_crash_loop_status_shows_exits_and_next_attempt(serving: Serving) -> None:
    """They are fields of the JSON output and are shown in the table."""
    bad = wait_backoff(serving, "bad.0")
    assert (bad["last_exit"], bad["last_line"]) == ("exit code 3", "cannot find it")
    assert isinstance(bad["next_try_in"], float)
    assert 0 <= bad["next_try_in"] <= 60
    assert serving.worker("good.0")["next_try_in"] is None
    table = serving.cli("status").stdout
    [line] = [line for line in table.splitlines() if line.startswith("bad.0")]
    assert "exit code 3, " in line
    assert " times in a row" in line
    assert "last line: cannot find it" in line
    wait_backoff(serving, "moody.0")
    assert serving.worker("moody.0")["last_line"] == "ConnectionError: no database"


def test_crash_loop_after_readiness_backs_off(serving: Serving) -> None:
    """Becoming ready does not reset the backoff."""
    wait_crashes(serving, "flaps.0", IN_LOOP + 2)
    assert wait_backoff(serving, "flaps.0")["last_exit"] == "exit code 7"


def test_crash_loop_probe_and_readyz_give_reason(serving: Serving) -> None:
    wait_backoff(serving, "bad.0")
    finished = serving.cli("probe", "readiness")
    assert finished.returncode == 1
    assert finished.stdout.startswith("readiness: failing, not ready: bad.0 (")
    assert re.findall(r"(\w+)\.0 \(", finished.stdout) == [
        "bad",
        "moody",
        "flaps",
        "needs",
    ]
    assert "exit code 3, " in finished.stdout
    assert "needs.0 (waiting for moody to be ready)" in finished.stdout
    line = serving.wait_line("health checks at ")
    address = json.loads(line)["message"].rpartition(" ")[2]
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/readyz", timeout=30)
    body = caught.value.read().decode()
    assert caught.value.code == 503
    assert body.startswith("failing, not ready: bad.0 (")
    assert "good" not in body
    assert "cannot find it" not in body, "what it prints is not for everybody"


def test_crash_loop_wait_ready_names_it_on_timeout(serving: Serving) -> None:
    finished = serving.cli("status", "--wait-ready", "--timeout", "0.3")
    assert finished.returncode == 4
    start = (
        "trio-supervisor: not all workers were ready within 0.3 s (--timeout): bad.0 is"
    )
    assert finished.stderr.startswith(start)
    assert "cannot find it" in finished.stderr
    assert "needs.0 is waiting (waiting for moody to be ready)" in finished.stderr


def test_crash_loop_start_of_dependent_fails_with_reason(serving: Serving) -> None:
    finished = serving.cli("start", "needs")
    assert finished.returncode == 1
    start = (
        "needs.0 is waiting for moody to be ready, but moody.0 is in backoff: "
        "exit code 1, "
    )
    assert start in finished.stderr


def test_crash_loop_log_summarises_repeated_crashes(serving: Serving) -> None:
    """The log has a line for each doubling; each crash is an event."""
    wait_crashes(serving, "bad.0", 9)
    told = serving.select(event="exited", name="bad.0")
    assert [event["crashes"] for event in told[:6]] == [1, 2, 3, 4, 5, 8]
    assert told[0]["message"].endswith("; restarting; last line: cannot find it")
    assert len(serving.select(event="started", name="bad.0")) == 6
    lines = serving.cli("events", "--json").stdout.splitlines()
    every = [json.loads(line) for line in lines]
    exits = [e for e in every if e["event"] == "exited" and e["name"] == "bad.0"]
    crashes = [event["crashes"] for event in exits]
    assert crashes[:9] == list(range(1, 10))


def test_crash_loop_post_mortems_share_one_file(serving: Serving) -> None:
    """They do not displace the post-mortems of other workers."""
    wait_crashes(serving, "bad.0", IN_LOOP)
    found: dict[str, dict[str, Any]] = {}

    def are_folded() -> bool:  # the replaced file exists a moment longer
        found.update(post_mortems(serving))
        return len(found) == 3

    serving.until(are_folded, "one file for each")
    assert sorted(found) == ["bad.0", "flaps.0", "moody.0"]
    assert found["bad.0"]["repeats"] >= IN_LOOP
    assert found["bad.0"]["last_line"] == "cannot find it"
    table = serving.cli("post-mortem").stdout
    assert re.search(r"exit code 7 \(\d+ times since 20", table)


def post_mortems(serving: Serving) -> dict[str, dict[str, Any]]:
    records = json.loads(serving.cli("post-mortem", "--json").stdout)
    found = {record["name"]: record for record in records}
    return found if len(found) == len(records) else {}


def test_crash_loop_ends_when_cause_disappears(serving: Serving) -> None:
    """A restart by the verb tries immediately; waiting dependents start."""
    wait_crashes(serving, "moody.0", IN_LOOP)
    (serving.directory / "tmp" / "database").touch()
    finished = serving.cli("restart", "moody")
    assert (finished.returncode, finished.stderr) == (0, "")
    serving.wait_worker("moody.0", state="ready", crashes=0)
    serving.wait_worker("needs.0", state="ready")


def test_crash_loop_restart_tries_immediately_and_resets_count(
    serving: Serving,
) -> None:
    wait_crashes(serving, "bad.0", IN_LOOP)
    since = serving.mark()
    finished = serving.cli("start", "bad")
    assert finished.returncode == 1
    assert "bad.0 did not stay up for 1 s (stable_for): exit code 3" in finished.stderr
    assert serving.wait_event(event="exited", name="bad.0", since=since)["crashes"] == 1


HOLDER = """
import socket, sys, time
sock = socket.create_server(("127.0.0.1", PORT))
time.sleep(1000)
"""
CONFLICT = """
import sys
from trio_supervisor import Application, Command, Listen, Probe

first = Command("first", [sys.executable, "holder.py"],
                readiness=Probe.tcp("127.0.0.1:PORT", interval=0.05))
second = Command("second", [sys.executable, "-m", "http.server", "-b", "127.0.0.1",
                            "PORT"], depends_on={"first": "ready"})
application = Application([first, second])
"""


def test_crash_loop_does_not_block_reload(serving: Serving) -> None:
    """A service that crashed before does not fail the reload; the answer names it."""
    for name in ("bad.0", "flaps.0"):
        wait_crashes(serving, name, IN_LOOP)
    serving.edit(SERVICE.replace("exit 3", "exit 4").replace("(7)", "(8)"))
    since = serving.mark()

    done = serving.cli("reload")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "generation 2 took over" in lines
    assert (
        "bad.0 is not ready (nor was it before the reload): exit code 4" in done.stdout
    )
    assert serving.worker("good.0")["generation"] == 2
    assert serving.select(since, event="still_failing", name="bad.0")

    serving.edit(SERVICE.replace("worker.ready()", "raise SystemExit(9)"))
    failed = serving.cli("reload")
    assert failed.returncode == 1
    assert "exit code 9" in failed.stderr
    assert serving.worker("good.0")["generation"] == 2


def test_crash_loop_address_in_use_names_holder() -> None:
    """A managed worker is named; the port is found from the arguments alone."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
    files = {"holder.py": HOLDER.replace("PORT", port)}
    source = CONFLICT.replace("PORT", port)
    with open_serving(source, is_ready=False, files=files) as serving:
        exited = serving.wait_event(event="exited", name="second.0")
        holder = serving.wait_event(event="started", name="first.0")["process_id"]
        problem = f"port {port} is in use by first.0 (pid {holder})"
        assert exited["problem"] == problem
        assert exited["message"].endswith(f"; restarting; {problem}")
        assert serving.wait_worker("second.0", problem=problem)
        # It may be starting again at this moment.
        shown = f"port {port} is in use by first.0, pid {holder}"
        serving.until(lambda: shown in serving.cli("status").stdout, shown)
