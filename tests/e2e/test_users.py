"""Test that processes run as the user and with the groups of their service."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    Serving,
    environment_of_children,
    open_serving,
    short_directory,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux"
)
NOBODY = 65534
WITHOUT_SETUID = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"]
DAEMON = 1
BIN = 2
SERVICE = """
from trio_supervisor import Application, Command, Probe

application = Application([
    Command(
        "named",
        ["sh", "-c", "echo $HOME:$USER; echo reopened >/dev/stdout; exec sleep 1000"],
        user="nobody", group=1, supplementary_groups=[2],
        log_file="named.log",
        nice=5,
        # The controller's user may do this, and the command's may not.
        readiness=Probe.command(["sh", "-c", "! test -w /etc/passwd"]),
    ),
    Command("numeric", ["sleep", "1000"], user=54321, group=54321, restart="never"),
])
"""


WORKERS = """
import trio
from trio_supervisor import Application, Service

async def work(worker):
    await worker.ready()
    await trio.sleep_forever()

options = {"user": "nobody", "limits": {"nofile": 300}, "nice": 5}
application = Application([
    Service("forked", work, **options),
    Service("executed", work, start_method="exec", **options),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE) as found:
        yield found


@pytest.fixture(scope="module")
def of_others() -> Iterator[Serving]:
    """A controller with workers of another user, if that user can execute Python."""
    try:
        subprocess.run(
            [sys.executable, "-c", "import trio_supervisor"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("Python is installed where other users cannot read it")
    open_up = ["sh", "-c", 'chmod 755 . && exec "$@"', "sh"]
    with open_serving(WORKERS, prefix=open_up) as found:
        yield found


def test_workers_of_another_user_connect(of_others: Serving) -> None:
    """All are ready and connected; the supervisor's restart changes nothing."""
    pids = of_others.pids()
    for name in ("forked.0", "executed.0"):
        assert status_of(pids[name])["Uid"] == {NOBODY}
        path = Path(f"/proc/{pids[name]}/limits")
        assert "Max open files            300" in path.read_text()
    since = of_others.mark()
    of_others.kill("supervisor")
    of_others.wait_event(since=since, name="supervisor", event="ready")
    of_others.when_ready()
    assert of_others.pids() == pids


def test_spare_workers_have_the_user_as_well(of_others: Serving) -> None:
    since = of_others.mark()
    of_others.kill("forked.0")
    of_others.wait_event(since=since, name="forked.0", event="ready")
    assert status_of(of_others.pids()["forked.0"])["Uid"] == {NOBODY}


def status_of(process_id: int) -> dict[str, set[int]]:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    names = ("Uid", "Gid", "Groups")
    return {name: {int(word) for word in fields[name].split()} for name in names}


def test_command_runs_as_its_user(serving: Serving) -> None:
    """Its probe as well, which succeeded only for that reason."""
    process_id = serving.pids()["named.0"]
    found = status_of(process_id)
    assert (found["Uid"], found["Gid"]) == ({NOBODY}, {DAEMON})
    assert {DAEMON, BIN} <= found["Groups"]
    assert 0 not in found["Groups"]
    assert os.getpriority(os.PRIO_PROCESS, process_id) == 5


def test_user_without_passwd_entry(serving: Serving) -> None:
    found = status_of(serving.pids()["numeric.0"])
    assert found == {"Uid": {54321}, "Gid": {54321}, "Groups": {54321}}


def test_log_file_stays_the_controllers(serving: Serving) -> None:
    path = serving.directory / "named.log"
    assert "nobody" in path.read_text()
    assert "reopened" in path.read_text()
    assert path.stat().st_uid == 0


def test_socket_is_private_without_workers_of_other_users(serving: Serving) -> None:
    """Commands do not connect to it."""
    assert stat.S_IMODE(serving.socket.stat().st_mode) == 0o600


def test_restart_keeps_the_user(serving: Serving) -> None:
    before = serving.pids()["named.0"]
    assert serving.cli("restart", "named").returncode == 0
    after = serving.pids()["named.0"]
    assert after != before
    assert status_of(after)["Uid"] == {NOBODY}


def test_user_of_unprivileged_controller_is_reported_before_the_start() -> None:
    with short_directory() as directory:
        text = SERVICE.replace('"nobody"', '"nobdy"')
        (directory / "service.py").write_text(text)
        result = subprocess.run(
            [*WITHOUT_SETUID, *COMMAND, "serve", "service.py"],
            cwd=directory,
            env=environment_of_children(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 10
    assert result.stderr.splitlines() == [
        "trio-supervisor: 2 problems:",
        "  services[0].user: named: cannot set user='nobdy': unknown user (did you "
        "mean 'nobody'?)",
        "  services[1].user: numeric: cannot set user=54321: Operation not permitted "
        "(needs CAP_SETUID)",
    ]
