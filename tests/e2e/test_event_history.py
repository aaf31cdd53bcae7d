"""Test events that outlive supervisor and controller, and what selects them."""

from __future__ import annotations

import json
import re
import signal
import time
from datetime import UTC, datetime

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
from trio_supervisor import Application, Command
application = Application([
    Command("web", ["sleep", "1000"], count=2),
    Command("fails", ["sh", "-c", "echo boom >&2; exit 3"],
            restart="on-failure", success_exit_codes=[3]),
])
"""
OLD = {
    "time": "2026-01-01T00:00:00.000Z",
    "event": "exited",
    "name": "web.0",
    "message": "of an earlier controller",
}
STATE = {"supervisor.state/events.jsonl.1": json.dumps(OLD) + "\n{damaged\n7\n"}


def events(serving: Serving, *words: str) -> list[dict[str, object]]:
    finished = serving.cli("events", "--json", *words)
    assert (finished.returncode, finished.stderr) == (0, "")
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_history_is_selected_by_time_name_and_type() -> None:
    with open_serving(SERVICE, files=STATE) as serving:
        serving.wait_event(event="exited", name="fails.0")
        both = events(serving, "--type", "exited")
        assert [event["name"] for event in both] == ["web.0", "fails.0"]
        assert both[0] == OLD
        recent = events(serving, "--type", "exited", "--since", "1h")
        assert [event["name"] for event in recent] == ["fails.0"]
        started = events(serving, "--name", "web", "--type", "started")
        assert {event["name"] for event in started} == {"web.0", "web.1"}
        (second,) = events(serving, "--name", "*.1", "--type", "started")
        assert second["name"] == "web.1"
        since = datetime.now(UTC).isoformat()
        assert events(serving, "--since", since) == []
        assert events(serving, "--since", "2026-01-01")[-1]["event"] == "all_ready"


def test_history_outlives_a_killed_controller() -> None:
    with open_serving(SERVICE) as serving:
        serving.wait_event(event="exited", name="fails.0")
        saved = serving.directory / "supervisor.state/events.jsonl"
        serving.until(lambda: '"exited"' in saved.read_text(), "the event on disk")
        serving.process.send_signal(signal.SIGKILL)
        serving.wait_exit()
        serving.wait_nothing_left(30)
        finished = serving.cli("events", "--type", "exited")
        assert finished.returncode == 0
        assert "fails.0       exited with code 3" in finished.stdout
        assert finished.stderr.startswith("trio-supervisor: no supervisor answers; ")
        assert serving.cli("events", "--type", "exited", "-f").returncode == 3


def test_removed_history_begins_anew() -> None:
    with open_serving(SERVICE) as serving:
        saved = serving.directory / "supervisor.state/events.jsonl"
        serving.until(saved.exists, "the file")
        saved.unlink()
        assert serving.cli("restart", "web.0").returncode == 0
        serving.until(
            lambda: saved.exists() and '"ready"' in saved.read_text(), "a new file"
        )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--type", "exitted"], "did you mean 'exited'"),
        (["--since", "yesterday"], "expected 90s, 10m, 2h, 3d, or a time such as"),
    ],
)
def test_mistake_is_named(words: list[str], problem: str) -> None:
    with open_serving(SERVICE) as serving:
        finished = serving.cli("events", *words)
        assert finished.returncode in (1, 2)
        assert problem in finished.stderr
        assert "Traceback" not in finished.stderr


def test_logs_are_selected_by_time_and_pattern() -> None:
    source = """
from trio_supervisor import Application, Command
application = Application([
    Command("chatty", ["sh", "-c", "for n in 1 2 3; do echo line $n; done; "
                       "exec sleep 1000"]),
])
"""
    with open_serving(source) as serving:
        serving.until(lambda: "line 3" in serving.cli("logs").stdout, "the last line")
        shown = serving.cli("logs", "--grep", "line [23]").stdout
        assert re.findall(r"line \d", shown) == ["line 2", "line 3"]
        assert serving.cli("logs", "--since", "1h").stdout.count("line") == 3
        later = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()
        assert serving.cli("logs", "--since", later).stdout == ""
        finished = serving.cli("logs", "--grep", "(")
        assert finished.returncode == 1
        assert "--grep '('" in finished.stderr


CALM = """
from trio_supervisor import Application, Command
application = Application([Command("web", ["sleep", "1000"])])
"""


def test_calm_run_leaves_nothing_behind() -> None:
    with open_serving(CALM) as serving:
        state = serving.directory / "supervisor.state"
        serving.until(state.exists, "the directory")
        serving.process.send_signal(signal.SIGTERM)
        assert serving.wait_exit() == 0
        assert not state.exists()


def test_calm_run_keeps_history_of_runs_before() -> None:
    with open_serving(CALM, files=STATE) as serving:
        serving.process.send_signal(signal.SIGTERM)
        assert serving.wait_exit() == 0
        finished = serving.cli("events", "--name", "controller", "--type", "stopped")
        assert "everything stopped" in finished.stdout
