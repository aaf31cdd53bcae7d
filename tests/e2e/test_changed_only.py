"""Test that ``reload --changed-only`` keeps exactly the unchanged services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

SERVICE = """
import importlib
import trio
from trio_supervisor import Application, Service, SyncWorker, Worker

NAMES = ["plugin"]

async def web(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

async def lazy(worker: Worker) -> None:
    from later import word
    await worker.status(word)
    await worker.ready()
    await worker.stopping.wait()

async def computed(worker: Worker) -> None:
    plugin = importlib.import_module("".join(NAMES))
    await worker.status(plugin.WORD)
    await worker.ready()
    await worker.stopping.wait()

def job(worker: SyncWorker) -> None:
    with open("runs", "a") as file:
        file.write("run\\n")

application = Application([
    Service("web", web),
    Service("lazy", lazy),
    Service("computed", computed),
    Service("job", job, backend="sync", restart="on-failure"),
])
"""
FILES = {"later.py": "word = 'one'\n", "plugin.py": "WORD = 'one'\n"}


@pytest.fixture
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, files=FILES, is_ready=False) as serving:
        serving.wait_event(event="exited", name="job.0")
        for name in ("web.0", "lazy.0", "computed.0"):
            serving.wait_worker(name, state="ready", connected=True)
        yield serving


def reload(serving: Serving, *words: str) -> dict[str, str]:
    """Reload changed services; return the sign of each service."""
    done = serving.cli("reload", "--changed-only", *words)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {
        words[1].rstrip(":"): "kept" if "kept)" in words else "changed"
        for words in lines
        if words[0] in "=~"
    }


def runs(serving: Serving) -> int:
    return (serving.directory / "runs").read_text().count("run")


def test_reload_changed_only_replaces_services_with_new_code(serving: Serving) -> None:
    """Services are told apart in one file, by lazy imports and by computed imports."""
    everything = {"web", "lazy", "computed", "job"}
    before = serving.pids("web", "lazy", "computed")

    def changed(*, dry_run: bool = True) -> set[str]:
        signs = reload(serving, *(["--dry-run"] if dry_run else []))
        assert signs.keys() == everything
        return {name for name, sign in signs.items() if sign == "changed"}

    assert changed(dry_run=False) == set()
    assert serving.pids("web", "lazy", "computed") == before
    assert runs(serving) == 1, "a job that is done was run again"

    serving.edit(SERVICE.replace("await worker.ready()", "await worker.ready() ", 1))
    assert changed() == set(), "of spaces"
    serving.edit(SERVICE.replace("worker.stopping", "worker .stopping", 1) + "# end\n")
    assert changed() == set(), "of comments"

    serving.edit(SERVICE)
    serving.put("later.py", "word = 'two'\n")
    assert changed() == {"lazy"}
    serving.put("plugin.py", "WORD = 'two'\n")
    assert changed() == {"lazy", "computed"}
    assert changed(dry_run=False) == {"lazy", "computed"}
    assert serving.wait_worker("computed.0", state="ready")["status"] == "two"
    assert serving.pids("web")["web.0"] == before["web.0"]
    assert changed() == set()

    serving.edit(SERVICE.replace('write("run', 'write("again, run'))
    assert changed(dry_run=False) == {"job"}
    serving.until(lambda: runs(serving) == 2, "a second run of the changed job")
    assert serving.pids("web")["web.0"] == before["web.0"]


def test_reload_changed_only_shared_file_replaces_all(serving: Serving) -> None:
    """The service file itself imports the module by a computed name."""
    serving.put("extra.py", "X = 1\n")
    source = SERVICE + "\nEXTRA = importlib.import_module('ex' + 'tra')\n"
    serving.edit(source)
    assert set(reload(serving).values()) == {"changed"}
    for name in ("web.0", "lazy.0", "computed.0"):
        serving.wait_worker(name, state="ready", connected=True)
    assert set(reload(serving).values()) == {"kept"}
    serving.put("extra.py", "X = 2\n")
    signs = reload(serving, "--dry-run")
    assert {n for n, sign in signs.items() if sign == "changed"} == {
        "web",
        "lazy",
        "computed",
    }
