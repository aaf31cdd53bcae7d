"""Test that processes run with the attributes that their service declares."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.spawn.attributes import available_cpus

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")

CPU = str(max(available_cpus(), default=0))
SERVICE = """
import trio
from trio_supervisor import Application, Command, Service

async def work(worker):
    await worker.ready()
    await trio.sleep_forever()

attributes = dict(
    umask="027",
    nice=5,
    ionice="best-effort:6",
    cpu_affinity=[CPU],
    oom_score_adj=500,
    limits={"nofile": (300, 400), "core": 0},
    no_new_privileges=True,
)
application = Application([
    Service("forked", work, **attributes),
    Service("executed", work, start_method="exec", **attributes),
    Command("command", ["sleep", "1000"], **attributes),
    Service("plain", work),
])
""".replace("CPU", CPU)
NAMES = ["forked.0", "executed.0", "command.0"]
DECLARED = {
    "umask": "0027",
    "privileges": "1",
    "cpus": CPU,
    "oom_score_adj": "500",
    "nice": 5,
    "nofile": (300, 400),
    "core": (0, 0),
}


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE) as found:
        yield found


def attributes_of(process_id: int) -> dict[str, object]:
    directory = Path(f"/proc/{process_id}")
    lines = (directory / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    return {
        "umask": status["Umask"],
        "privileges": status["NoNewPrivs"],
        "cpus": status["Cpus_allowed_list"],
        "oom_score_adj": (directory / "oom_score_adj").read_text().strip(),
        "nice": os.getpriority(os.PRIO_PROCESS, process_id),
        "nofile": resource.prlimit(process_id, resource.RLIMIT_NOFILE),
        "core": resource.prlimit(process_id, resource.RLIMIT_CORE),
    }


@pytest.mark.parametrize("name", NAMES)
def test_process_has_the_declared_attributes(serving: Serving, name: str) -> None:
    assert attributes_of(serving.pids()[name]) == DECLARED


def test_process_without_attributes_has_those_of_the_controller(
    serving: Serving,
) -> None:
    ours = attributes_of(serving.process.pid)
    assert attributes_of(serving.pids()["plain.0"]) == ours


def test_reload_to_changed_or_refused_attributes(serving: Serving) -> None:
    """A spare child that was forked before takes the attributes of its service."""
    source = serving.directory / "service.py"
    source.write_text(SERVICE.replace("oom_score_adj=500", "oom_score_adj=600"))
    reload = serving.cli("reload", "--changed-only")
    assert "oom_score_adj 500 -> 600" in reload.stdout
    expected = {**DECLARED, "oom_score_adj": "600"}
    assert attributes_of(serving.pids()["forked.0"]) == expected
    before = serving.pids()
    source.write_text(SERVICE.replace("(300, 400)", "2**40"))
    reload = serving.cli("reload")
    assert reload.returncode != 0
    assert (
        f"services[2].limits['nofile']: command: cannot set limits['nofile']={2**40}: "
        f"Operation not permitted"
    ) in reload.stderr
    assert serving.pids() == before
