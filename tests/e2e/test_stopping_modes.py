"""Test kill_mode, pre_stop and forward_signals; nothing is left running."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import Serving, is_alive, open_serving, wait_gone

SERVICE = """
from trio_supervisor import Application, Command, Service, SyncWorker

# Both write down that they were asked, and the inner one does not end for it.
TREE = '''
trap "" TERM
(trap "echo inner >> tmp/{0}.asked" TERM; echo $BASHPID > tmp/{0}.pid
 while :; do sleep 0.01; done) &
trap "echo outer >> tmp/{0}.asked; exit 0" TERM
while [ ! -s tmp/{0}.pid ]; do sleep 0.01; done
echo ready > tmp/{0}.ready
while :; do sleep 0.01; done
'''

def tree(name, **options):
    return Command(name, ["bash", "-c", TREE.format(name)], stop_timeout=4, **options)

DAEMON = (
    "setsid sh -c 'trap \\"\\" TERM; echo $$ > tmp/daemon.pid; sleep 1000' &"
    "exec sleep 1000"
)

application = Application([
    tree("whole"),
    tree("leader", kill_mode="leader"),
    Command("daemon", ["sh", "-c", DAEMON], stop_timeout=0.2),
    Command("hooked", ["sh", "-c", "trap 'echo stop >> tmp/hooked; exit 0' TERM;"
                       "while :; do sleep 0.01; done"],
            pre_stop=["sh", "-c",
                      "echo pre $MAINPID $TRIO_SUPERVISOR_NAME >> tmp/hooked;"
                      "kill -0 $MAINPID && echo lives >> tmp/hooked; exit 7"]),
    Command("slow-hook", ["sleep", "1000"], stop_timeout=0.4,
            pre_stop=["sh", "-c", "sleep 1000"]),
    # What waits for a job is not looked for before: the job may bring it.
    Command("job", ["true"], restart="on-failure"),
    Command("no-hook", ["sleep", "1000"], pre_stop=["no-such-program"],
            depends_on={"job": "exited_ok"}),
    Command("told", ["sh", "-c",
                     "trap 'echo two >&2' USR2; trap 'echo winch >&2' WINCH;"
                     "echo begun >&2; while :; do sleep 0.01; done"],
            forward_signals=["USR2", "WINCH"]),
    Command("deaf", ["sh", "-c", "trap 'echo two >&2' USR2; echo begun >&2;"
                     "while :; do sleep 0.01; done"]),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE) as serving:
        yield serving


def read(serving: Serving, name: str) -> str:
    return (serving.directory / "tmp" / name).read_text()


def wait_file(serving: Serving, name: str) -> str:
    """Wait until the file *name* is not empty."""
    path: Path = serving.directory / "tmp" / name
    serving.until(lambda: path.exists() and path.stat().st_size, name)
    return path.read_text()


@pytest.mark.parametrize(
    ("name", "asked"), [("whole", {"inner", "outer"}), ("leader", {"outer"})]
)
def test_kill_mode_signals_group_or_leader(
    serving: Serving, name: str, asked: set[str]
) -> None:
    wait_file(serving, f"{name}.ready")
    inner = int(read(serving, f"{name}.pid"))

    assert serving.cli("stop", name).returncode == 0

    assert not is_alive(inner)
    assert set(read(serving, f"{name}.asked").split()) == asked
    exited = serving.wait_event(event="exited", name=f"{name}.0")
    assert (exited["returncode"], exited["is_planned"]) == (0, True)


def test_stop_waits_for_process_outside_group(
    serving: Serving,
) -> None:
    """The process also ignores the signal."""
    daemon = int(wait_file(serving, "daemon.pid"))

    assert serving.cli("stop", "daemon").returncode == 0

    assert not is_alive(daemon)


def test_pre_stop_runs_before_signal_and_may_fail(
    serving: Serving,
) -> None:
    process_id = serving.pids()["hooked.0"]

    assert serving.cli("stop", "hooked").returncode == 0

    assert read(serving, "hooked").splitlines() == [
        f"pre {process_id} hooked.0",
        "lives",
        "stop",
    ]
    serving.wait_line(f"pre_stop of pid {process_id} failed (exit code 7)")


def test_pre_stop_time_counts_towards_stop_timeout(serving: Serving) -> None:
    began = serving.mark()

    assert serving.cli("stop", "slow-hook").returncode == 0

    stopping = serving.wait_event(since=began, event="stopping", name="slow-hook.0")
    exited = serving.wait_event(since=began, event="exited", name="slow-hook.0")
    assert 0.39 <= exited["at"] - stopping["at"] < 10


def test_pre_stop_that_cannot_run_is_logged(serving: Serving) -> None:
    assert serving.cli("stop", "no-hook").returncode == 0
    serving.wait_line("No such file or directory: 'no-such-program'")
    exited = serving.wait_event(event="exited", name="no-hook.0")
    assert exited["returncode"] == -signal.SIGTERM


def test_forward_signals_are_passed_on(serving: Serving) -> None:
    for name in ("told.0", "deaf.0"):
        serving.printed(name, "begun")

    serving.process.send_signal(signal.SIGUSR2)
    serving.printed("told.0", "two")
    serving.process.send_signal(signal.SIGWINCH)
    serving.printed("told.0", "winch")

    assert not serving.select(name="deaf.0", message="two")
    assert serving.worker("told.0")["restarts"] == 0


def test_reload_changes_forward_signals(serving: Serving) -> None:
    """A signal that is not forwarded would end `serve`."""
    serving.edit(SERVICE.replace('["USR2", "WINCH"]', '["USR2", "WINCH", "QUIT"]'))
    assert serving.cli("reload").returncode == 0
    serving.wait_worker("told.0", state="ready")

    serving.process.send_signal(signal.SIGQUIT)

    code = -signal.SIGQUIT
    exited = serving.wait_event(event="exited", name="told.0", returncode=code)
    assert not exited["is_planned"]
    assert serving.process.poll() is None


def test_shutdown_leaves_nothing(serving: Serving) -> None:
    left = serving.process_ids()
    assert serving.terminate() == 0
    wait_gone(left, timeout=0)
    assert os.listdir(serving.directory / "tmp")  # written by the commands
