"""Test the comparison of the generations before and after a reload."""

from __future__ import annotations

from typing import Any

from tests.kits.serving import open_serving

SERVICE = """
import trio
from trio_supervisor import Application, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await trio.sleep_forever()

application = Application([Service("web", work), Service("old", work)])
"""
# An import that takes longer, and a worker that has more open.
CHANGED = """
import time
time.sleep(0.2)
FILES = [open("/dev/null") for _ in range(50)]
""" + SERVICE.replace('"old"', '"new"')


def workers_of(generation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in generation["workers"]}


def test_diff_compares_generations() -> None:
    with open_serving(SERVICE) as serving:
        first = serving.call("diff")
        (serving.directory / "service.py").write_text(CHANGED)
        serving.call("reload")
        report = serving.call("diff")
        table = serving.cli("diff").stdout
    assert first["previous"] is None
    assert first["current"]["number"] == 1
    assert first["current"]["import_seconds"] is not None
    before, now = report["previous"], report["current"]
    assert (before["number"], now["number"]) == (1, 2)
    assert now["import_seconds"] >= 0.2
    old, new = workers_of(before), workers_of(now)
    assert (set(old), set(new)) == ({"web.0", "old.0"}, {"web.0", "new.0"})
    assert new["web.0"]["process_id"] != old["web.0"]["process_id"]
    # Without those of a connection that is just being made.
    assert new["web.0"]["descriptors"] > old["web.0"]["descriptors"] + 40
    for worker in (*old.values(), *new.values()):
        assert worker["memory"] > 2**20
        assert worker["threads"] >= 1
        assert 0 < worker["start_seconds"] <= worker["uptime"]
    lines = table.splitlines()
    assert lines[0].startswith("before: generation 1, imported in ")
    assert lines[1].startswith("now:    generation 2, imported in ")
    assert lines[2].split() == ["NAME", "START", "MEMORY", "CHANGE", "FDS", "UPTIME"]
    assert [line.split()[0] for line in lines[3:]] == [
        *("web.0", "new.0", "old.0", "total"),
    ]
    assert max(map(len, lines)) <= 80
