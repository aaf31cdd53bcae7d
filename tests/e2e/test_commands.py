"""Test the supervision of other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import Serving, open_serving

COMMANDS = '''
import sys
from trio_supervisor import Application, Command

SHOW = [sys.executable, "-S", "-c", """
import json, os, sys, time
own = f"{sys.argv[1]}.{os.getpid()}"
with open(own, "w") as file:
    json.dump({"environment": dict(os.environ), "directory": os.getcwd(),
               "input": sys.stdin.read()}, file)
os.replace(own, sys.argv[1])  # whole at any time
if "NOTIFY_SOCKET" in os.environ:
    import socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))
        notify.send(b"STATUS=two lines\\\\nREADY=1")
time.sleep(1000)
"""]
BEATS = [sys.executable, "-S", "-c", """
import os, select, socket, time
interval = int(os.environ["WATCHDOG_USEC"]) / 1e6 / 3
is_first = not os.path.exists("beats-again")
open("beats-again", "w").close()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))
notify.send(b"READY=1")
for beat in range(10**6):
    notify.send(b"WATCHDOG=1\\\\nSTATUS=beat %d" % beat)
    if is_first and beat == 2:
        with open("last-beat", "w") as file:
            file.write(repr(time.time()))
        select.select([], [], [])
    select.select([], [], [], interval)
"""]

AFTER_JOB = {"intensity": None, "depends_on": {"job": "exited_ok"}}
application = Application(
    services=[
        Command("plain", SHOW + ["plain.json"], count=2, environment={"LIKE": "this"}),
        Command("notify", SHOW + ["notify.json"], notify=True, directory="/tmp"),
        Command("beats", BEATS, notify=True, health_check_timeout=0.9),
        Command("silent", ["sleep", "1000"], notify=True, startup_timeout=0.3,
                restart="never"),
        Command("shell", ["sh", "-c", "echo off >&2; exit 3"], restart="never"),
        # What waits for a job is not looked for before: the job may bring it.
        Command("job", ["true"], restart="on-failure"),
        Command("missing", ["no-such-program", "-v"], **AFTER_JOB),
        Command("forbidden", ["./service.py"], **AFTER_JOB),
        Command("nowhere", ["true"], directory="no-such-directory", **AFTER_JOB),
    ],
)
'''


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve programs of several kinds; some of them cannot be started."""
    source = COMMANDS.replace('directory="/tmp"', "directory=sys.path[0] + '/tmp'")
    source = source.replace('["notify.json"]', '["../notify.json"]')
    with open_serving(source, is_ready=False) as serving:
        serving.wait_event(event="supervisor_connected")
        yield serving


def shown(serving: Serving, name: str) -> dict[str, Any]:
    """Return what the program recorded about its environment."""
    found: dict[str, Any] = json.loads((serving.directory / name).read_text())
    return found


def test_command_without_notify_is_ready_when_started(serving: Serving) -> None:
    started = serving.wait_event(event="started", name="plain.0")
    ready = serving.wait_event(event="ready", name="plain.0")

    assert ready["process_id"] == started["process_id"]
    serving.wait_worker("plain.1", state="ready", connected=False)


def test_command_with_notify_is_ready_on_ready_message(serving: Serving) -> None:
    """Its STATUS= is shown."""
    serving.wait_event(event="ready", name="notify.0")

    serving.wait_worker("notify.0", state="ready", status="two lines")


def test_command_gets_declared_environment(serving: Serving) -> None:
    serving.wait_event(event="ready", name="notify.0")
    found = shown(serving, "notify.json")
    environment = found["environment"]

    assert environment["TRIO_SUPERVISOR_NAME"] == "notify.0"
    assert environment["TRIO_SUPERVISOR_SOCKET"] == str(serving.socket)
    assert environment["NOTIFY_SOCKET"]
    assert "WATCHDOG_USEC" not in environment
    assert found["directory"] == str(serving.directory / "tmp")
    assert found["input"] == ""


def test_command_without_notify_has_no_notify_socket(serving: Serving) -> None:
    path = serving.directory / "plain.json"
    serving.until(path.exists, "what either of both writes")
    environment = shown(serving, "plain.json")["environment"]

    assert environment["LIKE"] == "this"
    assert "NOTIFY_SOCKET" not in environment
    assert environment["TRIO_SUPERVISOR_NAME"] in ("plain.0", "plain.1")


def test_command_later_status_is_shown(serving: Serving) -> None:
    serving.wait_events(2, event="ready", name="beats.0")

    def number() -> int:
        return int((serving.worker("beats.0")["status"] or "beat 0").split()[1])

    serving.until(lambda: number() > 0, "another beat")


def test_command_without_watchdog_message_is_replaced(serving: Serving) -> None:
    stopping = serving.wait_event(event="stopping", name="beats.0")
    serving.wait_events(2, event="ready", name="beats.0")

    assert stopping["cause"] == "unhealthy"
    # The timeout begins with the last beat.
    last = float((serving.directory / "last-beat").read_text())
    assert stopping["at"] - last >= 0.9 - 0.01


def test_command_that_never_notifies_exceeds_startup_timeout(serving: Serving) -> None:
    stopping = serving.wait_event(event="stopping", name="silent.0")

    assert stopping["cause"] == "startup_timeout"
    serving.wait_event(event="exited", name="silent.0")
    serving.wait_worker("silent.0", state="failed")


def test_command_stderr_is_passed_to_serve_stderr(serving: Serving) -> None:
    exited = serving.wait_event(event="exited", name="shell.0")

    assert exited["returncode"] == 3
    assert serving.printed("shell.0", "off")["pid"] == exited["process_id"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.0", "No such file or directory: no-such-program"),
        ("forbidden.0", "Permission denied: ./service.py"),
        ("nowhere.0", "No such file or directory: no-such-directory"),
    ],
)
def test_command_that_cannot_start_is_logged_and_retried(
    serving: Serving, name: str, problem: str
) -> None:
    """The delays between attempts grow."""
    failures = serving.wait_events(4, event="not_started", name=name)

    assert problem in failures[0]["problem"]
    assert failures[0]["message"].startswith("failed to start: ")
    assert failures[0]["level"] == "error"
    assert failures[0]["next_step"] == "retrying"
    assert failures[-1]["next_step"].startswith("retrying in ")
    worker = serving.wait_worker(name, state="backoff", process_id=None)
    assert problem in worker["last_exit"]
