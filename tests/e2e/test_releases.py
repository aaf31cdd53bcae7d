"""Test releases behind a symbolic link that are switched, broken or removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import os
import trio
from trio_supervisor import Application, Command, Service, Worker

RELEASE = "one"

async def work(worker: Worker) -> None:
    await worker.status(f"{RELEASE} {os.path.basename(os.getcwd())}")
    await worker.ready()
    await worker.stopping.wait()

application = Application([
    Service("forked", work),
    Service("exec", work, start_method="exec"),
    Command("program", ["sh", "-c", "basename $(pwd -P); exec sleep 1000"],
            log_file="program.log", environment={"RELEASE": RELEASE}),
])
"""
ENTER = 'mkdir one && cp service.py one && ln -s one current && cd current && exec "$@"'


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Serve in ``current``, a link to the release ``one``."""
    words = ("--socket", "../supervisor.ipc")
    prefix = ("sh", "-c", ENTER, "sh")
    with open_serving(SERVICE, prefix=prefix, words=words) as serving:
        yield serving


def release(serving: Serving, name: str, source: str) -> Path:
    """Make a release and switch the link to it."""
    directory = serving.directory / name
    directory.mkdir()
    (directory / "service.py").write_text(source)
    new = serving.directory / "new"
    new.symlink_to(name)
    new.rename(serving.directory / "current")
    return directory


def statuses(serving: Serving) -> set[str]:
    return {
        serving.wait_worker(name, state="ready")["status"]
        for name in ("forked.0", "exec.0")
    }


def directory_of(serving: Serving, name: str) -> str:
    return os.path.basename(os.readlink(f"/proc/{serving.pids()[name]}/cwd"))


def test_reload_uses_release_that_link_points_to(serving: Serving) -> None:
    """Code and directory are new; workers survive the removal of the old release."""
    assert statuses(serving) == {"one one"}
    release(serving, "two", SERVICE.replace('"one"', '"two"'))

    assert serving.cli("reload", "--dry-run").returncode == 0
    assert directory_of_controller(serving) == "one"
    assert serving.cli("reload").returncode == 0

    assert statuses(serving) == {"two two"}
    assert directory_of(serving, "program.0") == "two"
    shutil.rmtree(serving.directory / "one")
    for name in ("forked.0", "exec.0", "program.0", "supervisor"):
        since = serving.mark()
        serving.kill(name)
        serving.wait_event(since=since, event="ready", name=name)
    assert statuses(serving) == {"two two"}


def test_reload_of_broken_release_keeps_old_one(serving: Serving) -> None:
    """It also keeps its directory, although that was removed."""
    release(serving, "bad", SERVICE + "\nraise LookupError\n")
    shutil.rmtree(serving.directory / "one")

    done = serving.cli("reload")

    assert done.returncode == 1
    assert "bad/service.py" in done.stderr or "service.py, line" in done.stderr
    since = serving.mark()
    serving.kill("program.0")
    serving.wait_event(since=since, event="ready", name="program.0")
    assert directory_of(serving, "program.0") == "one (deleted)"


def directory_of_controller(serving: Serving) -> str:
    return os.path.basename(os.readlink(f"/proc/{serving.process.pid}/cwd"))


def test_old_program_restarts_in_its_release_beside_a_canary(serving: Serving) -> None:
    release(serving, "two", SERVICE.replace('"one"', '"two"'))
    since = serving.mark()
    with serving.peer() as peer:
        peer.send('{"id":2,"do":"reload","canary":1,"canary_for":60}')
        serving.wait_event(since=since, event="canary_started")
        assert statuses(serving) == {"two two"}, "of the canaries"
        since = serving.mark()
        serving.kill("program.0")
        serving.wait_event(since=since, event="ready", name="program.0")
        assert directory_of(serving, "program.0") == "one"
        assert serving.cli("reload", "--abort").returncode == 0
    assert directory_of_controller(serving) == "one"
    assert statuses(serving) == {"one one"}
