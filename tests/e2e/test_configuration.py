"""An application without code: served, reloaded, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving

CONFIGURATION = """\
[env]
GREETING = "hello"

[services.web]
command = ["sh", "-c", "echo $GREETING on $PORT; exec sleep 1000"]
count = 2
environment = { PORT = "{8000+index}", KEY = { file = "key" } }
nice = 5
stable_for = 0
depends_on = { py = "ready" }

[services.py]
target = "code_of_py:work"
environment = { PORT = "{9000+index}" }
count = 2

[services.exec]
target = "code_of_py:work"
start_method = "exec"
environment = { PORT = "1", KEY = { file = "key" } }
"""

CODE = """
import os
import trio

async def work(worker):
    is_visible = "TRIO_SUPERVISOR_CODE_ONLY" in os.environ
    print("port", os.environ["PORT"], is_visible, flush=True)
    await worker.ready()
    await trio.sleep_forever()
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    files = {"code_of_py.py": CODE, "key": "s3cret\n"}
    with open_serving(CONFIGURATION, target="supervisor.toml", files=files) as found:
        yield found


def environment_of(process_id: int) -> dict[str, str]:
    data = Path(f"/proc/{process_id}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in data.split("\0") if line)


def test_workers_have_the_environment_of_the_file(serving: Serving) -> None:
    pids = serving.pids()
    for index in (0, 1):
        environment = environment_of(pids[f"web.{index}"])
        assert environment["PORT"] == str(8000 + index)
        assert (environment["GREETING"], environment["KEY"]) == ("hello", "s3cret")
        log = serving.cli("logs", f"py.{index}").stdout
        assert f"port {9000 + index} False" in log


def test_worker_restarts_without_its_secret_file(serving: Serving) -> None:
    """Only the controller's import reads it."""
    (serving.directory / "key").rename(serving.directory / "moved")
    before = serving.pids()["exec.0"]
    serving.kill("exec.0")
    serving.until(
        lambda: serving.pids().get("exec.0") not in (None, before), "exec.0 restarts"
    )
    environment = environment_of(serving.pids()["exec.0"])
    assert environment["KEY"] == "s3cret"
    (serving.directory / "moved").rename(serving.directory / "key")


def test_reload_with_good_and_bad_edit(serving: Serving) -> None:
    """A bad edit leaves everything as it is, and its error names the line."""
    source = serving.directory / "supervisor.toml"
    source.write_text(CONFIGURATION.replace("hello", "bye").replace("nice = 5", ""))
    reload = serving.cli("reload", "--changed-only", "--json")
    assert reload.returncode == 0, reload.stderr
    assert "bye" not in reload.stdout
    plans = {each["name"]: each for each in json.loads(reload.stdout)["services"]}
    fields = [change["field"] for change in plans["web"]["changes"]]
    assert "nice" in fields
    before = serving.pids()
    assert environment_of(before["web.0"])["GREETING"] == "bye"
    source.write_text(CONFIGURATION.replace("nice", "nic"))
    reload = serving.cli("reload")
    assert reload.returncode != 0
    problem = "supervisor.toml, line 8: services.web.nic: unknown key (did you mean"
    assert problem in reload.stderr
    assert serving.pids() == before
    assert "s3cret" not in serving.text
