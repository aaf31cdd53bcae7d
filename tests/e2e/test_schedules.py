"""Test services with a schedule as a user has them: real processes, a file of TOML."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import time
from trio_supervisor import Application, Command, Schedule, SyncWorker

def tidy(worker: SyncWorker) -> None:
    print("tidied", flush=True)

def slow(worker: SyncWorker) -> None:
    open("slow-began", "w").close()
    while not open("go").read():
        time.sleep(0.01)
    open("slow-ended", "w").close()

application = Application([
    Command("web", ["sleep", "1000"]),
    Schedule("tick", ["sh", "-c", "date +%s.%N >> ticks"], every=0.5),
    Schedule("tidy", tidy, every=0.5, backend="sync"),
    Schedule("slow", slow, every=86400, backend="sync"),
    Schedule("stuck", ["sleep", "1000"], every=86400, timeout=1.5),
    Schedule("nightly", ["true"], cron="0 3 * * *"),
])
"""


STATE = "supervisor.state"


def count_of(ticks: Path) -> int:
    return len(ticks.read_text().splitlines())


def schedule_of(serving: Serving, name: str) -> dict[str, object]:
    found = serving.worker(name)["schedule"]
    assert isinstance(found, dict)
    return found


def test_schedules_run_pause_and_outlive_a_reload() -> None:
    with open_serving(SERVICE) as serving:
        (serving.directory / "go").touch()
        ticks = serving.directory / "ticks"
        serving.until(lambda: ticks.exists() and count_of(ticks) > 2, "3")
        serving.wait_line("tidied")
        serving.until(lambda: schedule_of(serving, "tidy.0")["last_result"], "its end")
        assert schedule_of(serving, "tidy.0")["last_result"] == "exit code 0"
        table = serving.cli("status").stdout
        assert "(next run in " in table
        assert "the last ended with exit code 0 after " in table

        assert serving.cli("stop", "tick").returncode == 0
        count = count_of(ticks)
        assert schedule_of(serving, "tick.0")["next_run_at"] is None
        assert serving.cli("start", "nightly").returncode == 0
        assert schedule_of(serving, "nightly.0")["last_result"] == "exit code 0"

        serving.cli("start", "slow", "--timeout", "30")
        serving.until((serving.directory / "slow-began").exists, "its run")
        assert serving.cli("reload").returncode == 0
        assert not (serving.directory / "slow-ended").exists()
        (serving.directory / "go").write_text("go")
        serving.until((serving.directory / "slow-ended").exists, "the end of its run")
        assert count_of(ticks) == count, "the pause outlives a reload"

        serving.process.send_signal(signal.SIGTERM)
        assert serving.wait_exit() == 0


def test_run_longer_than_its_timeout_is_stopped() -> None:
    with open_serving(SERVICE) as serving:
        assert serving.cli("start", "stuck").returncode == 0
        stopping = serving.wait_event(event="stopping", name="stuck.0")
        assert stopping["message"].startswith("ran for 1.5 s (timeout of its schedule")
        serving.wait_worker("stuck.0", state="failed")
        assert serving.cli("probe", "readiness").returncode == 0


def test_run_missed_while_nothing_ran_is_made_up_for() -> None:
    """The state directory knows when each run was due."""
    due = {"nightly: 0 3 * * *": time.time() - 3600, "tick: every 0.5 s": 1e12}
    files = {f"{STATE}/due-times": json.dumps(due)}
    with open_serving(SERVICE, files=files) as serving:
        serving.wait_event(event="exited", name="nightly.0")
        serving.wait_event(event="exited", name="tick.0")
        saved = serving.directory / STATE / "due-times"
        serving.until(lambda: "tick" not in saved.read_text(), "what is due now")
        assert json.loads(saved.read_text())["nightly: 0 3 * * *"] > time.time()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"nightly: 0 3 * * *": "x"}', "\0"])
def test_damaged_file_of_due_times_changes_nothing(text: str) -> None:
    with open_serving(SERVICE, files={f"{STATE}/due-times": text}) as serving:
        serving.wait_event(event="exited", name="tick.0")
        assert serving.worker("nightly.0")["incarnation"] == 0
