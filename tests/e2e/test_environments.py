"""Test that ``environment=`` is set before the import in forked and exec'd workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.serving import Serving, open_serving

_SERVICE = r"""
import json, os, sys, time
from trio_supervisor import Application, Service

HERE = os.path.dirname(os.path.abspath(__file__))
SEEN = {"LEVEL": os.environ.get("LEVEL"), "zone": time.tzname[0], "hash": hash("x"),
        "hour": time.localtime(0).tm_hour}
try:
    import only_on_path
except ImportError:
    SEEN["path"] = None
else:
    SEEN["path"] = only_on_path.NAME
os.environ["LEVEL"] = (os.environ.get("LEVEL") or "none") + "+import"
if "trio_supervisor.process.spawn.fork_server" in sys.orig_argv:
    with open(f"{HERE}/imports", "a") as file:
        file.write(f"{os.getpid()} {SEEN['LEVEL']}\n")


def tell(worker):
    told = {**SEEN, "now": os.environ["LEVEL"],
            "malloc": os.environ.get("PYTHONMALLOC")}
    path = f"{HERE}/{worker.name}.json"
    with open(f"{path}.new", "w") as file:
        json.dump(told, file)
    os.rename(f"{path}.new", path)
    worker.ready()
    worker.stopping.wait()


def service(name, method="fork_server", count=1, **environment):
    return Service(name, tell, backend="sync", count=count, start_method=method,
                   environment=environment)


VARIABLES = {
    "level": {"LEVEL": "high"},
    "zone": {"TZ": "Asia/Tokyo"},
    "path": {"PYTHONPATH": f"{HERE}/other"},
    "hash": {"PYTHONHASHSEED": "42"},
    "malloc": {"PYTHONMALLOC": "malloc"},
}
application = Application(services=[
    service("plain"),
    *(service(name, **variables) for name, variables in VARIABLES.items()),
    service("shares", **VARIABLES["level"], count=2),
    service("unused", LEVEL="never", count=0),
    *(service(f"{name}-execd", "exec", **variables)
      for name, variables in VARIABLES.items()),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(_SERVICE, is_ready=False) as serving:
        (serving.directory / "other").mkdir()
        (serving.directory / "other" / "only_on_path.py").write_text("NAME = 'there'")
        serving.wait_event(event="all_ready")
        yield serving


def told(serving: Serving, name: str) -> dict[str, Any]:
    found: dict[str, Any]
    found = json.loads((serving.directory / f"{name}.0.json").read_text())
    return found


@pytest.mark.parametrize("name", ["level", "zone", "path", "hash", "malloc"])
def test_forked_worker_has_environment_before_import(
    serving: Serving, name: str
) -> None:
    forked, execd = told(serving, name), told(serving, f"{name}-execd")
    if name != "hash":  # without a seed each interpreter has a different one
        del forked["hash"], execd["hash"]
    assert forked == execd


def test_import_sees_declared_environment(serving: Serving) -> None:
    assert told(serving, "level")["LEVEL"] == "high"
    assert told(serving, "level")["now"] == "high+import"
    assert told(serving, "plain")["now"] == "none+import"
    assert told(serving, "zone")["hour"] == 9
    assert told(serving, "path")["path"] == "there"
    assert told(serving, "plain")["path"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")
def test_services_with_same_environment_share_fork_server(serving: Serving) -> None:
    """A service without workers starts none."""
    imports = (serving.directory / "imports").read_text().splitlines()
    levels = sorted(line.split()[1] for line in imports)
    assert levels == ["None"] * 5 + ["high"]


def test_reload_ends_fork_servers_of_old_environment() -> None:
    source = _SERVICE.replace('service("plain"),', 'service("plain", A="1"),')
    with open_serving(source) as serving:
        before = _servers(serving)
        serving.edit(_SERVICE.replace('service("plain"),', 'service("plain", A="2"),'))
        assert serving.cli("reload").returncode == 0
        serving.until(lambda: not before & _servers(serving), "ends of old servers")
        assert told(serving, "plain")["now"] == "none+import"
        environment = _environment(serving.worker("plain.0")["process_id"])
        assert b"A=2" in environment


def _servers(serving: Serving) -> set[int]:
    return {
        process_id
        for process_id in serving.process_ids()
        if _command(process_id).startswith(b"trio_supervisor: fork server")
    }


def _command(process_id: int) -> bytes:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


def _environment(process_id: int) -> list[bytes]:
    return Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0")


def test_import_exit_in_other_environment_is_reported() -> None:
    source = """
import os
from trio_supervisor import Application, Service

if "BAD" in os.environ:
    os._exit(3)

def work(worker):
    worker.ready()
    worker.stopping.wait()

application = Application(services=[
    Service("good", work, backend="sync"),
    Service("bad", work, backend="sync", environment={"BAD": "1"}),
])
"""
    with open_serving(source, is_ready=False) as serving:
        line = "service.py, line 6: the import terminated its process (exit code 3)"
        serving.wait_event(message=f"{line}; starting a new fork server")
        serving.wait_worker("good.0", state="ready")
