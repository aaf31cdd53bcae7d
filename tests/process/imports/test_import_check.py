"""Reading the declaration of an application in a separate process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from trio_supervisor.application import Command, Group, Service, TargetName
from trio_supervisor.errors import SpecError, TargetError
from trio_supervisor.process.imports.declaration import Declared
from trio_supervisor.process.imports.import_check import declare
from trio_supervisor.process.spawn.code_source import Reference

SERVICE = """\
import helper
from trio_supervisor import Application, Command, Group, Monitor, Service


async def web(worker):
    pass


class Own(Monitor):
    pass


application = Application(
    [
        Group([Service("web", web, count=3), Command("db", ["db", "-x"])], name="in"),
        Service(
            "jobs", lambda worker: None, backend="sync", depends_on={"db": "ready"}
        ),
    ],
    monitors=[Own()],
    name="shop",
)
"""


def write(directory: Path, source: str = SERVICE) -> Reference:
    """Write a service file, and return the reference to it."""
    (directory / "helper.py").write_text("")
    path = directory / "service.py"
    path.write_text(source)
    return Reference(f"{path}:application", (str(directory), *sys.path))


async def read(source: Reference) -> Declared:
    with trio.fail_after(60):
        return await declare(source, dict(os.environ))


async def test_declare_loads_none_of_the_application_code(tmp_path: Path) -> None:
    """Functions and monitors are names; everything else is complete."""
    found = await read(write(tmp_path))
    app = found.application
    assert app.name == "shop"
    assert [str(monitor) for monitor in app.monitors] == ["service:Own"]
    assert [service.name for service in app.services] == ["web", "db", "jobs"]
    assert app.needs()["jobs"] == {"db": "ready"}
    assert [group.name for group in app.root.children] == ["in", "jobs"]
    web, db, _ = app.services
    assert isinstance(web, Service)
    assert isinstance(db, Command)
    assert db.arguments == ("db", "-x")
    assert isinstance(web.target, TargetName)
    assert str(web.target) == "service:web"
    with pytest.raises(TypeError, match="is only a name"):
        web.target(None)
    # The services in the groups are those of the application.
    group = app.root.children[0]
    assert isinstance(group, Group)
    assert group.children == (web, db)
    assert not {"service", "helper"} & set(sys.modules)


async def test_declare_fingerprints_what_a_service_imports(tmp_path: Path) -> None:
    """A command has no Python code, so its fingerprint is empty."""
    source = write(tmp_path)
    before = (await read(source)).facts
    assert (await read(source)).facts == before
    (tmp_path / "helper.py").write_text("changed = True\n")
    after = (await read(source)).facts
    assert before["web"].fingerprint != after["web"].fingerprint
    assert before["db"] == after["db"]
    assert before["db"].fingerprint == ""
    assert before["web"].count == 3


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        pytest.param("import no_such_thing\n", "no_such_thing", id="import"),
        pytest.param("def (\n", "service.py", id="syntax"),
        pytest.param("", "application", id="empty file"),
        pytest.param("application = 7\n", "application", id="something else"),
        pytest.param("raise SystemExit(3)\n", "SystemExit: 3", id="exits"),
        pytest.param("import os\nos._exit(3)\n", "exit code 3", id="ends"),
        pytest.param("import os\nos.kill(os.getpid(), 9)\n", "SIGKILL", id="killed"),
        pytest.param(
            "from trio_supervisor import Application, Command\n"
            "application = Application([Command('a', ['a'], count=-1)])\n",
            "count",
            id="wrong declaration",
        ),
    ],
)
async def test_declare_failed_import_raises_error_with_cause(
    tmp_path: Path, source: str, complaint: str
) -> None:
    with pytest.raises((TargetError, SpecError), match=complaint):
        await read(write(tmp_path, source))


async def test_declare_ignores_threads_started_by_the_import(
    tmp_path: Path,
) -> None:
    """Such a thread would run forever."""
    source = "import threading, time\n" + SERVICE
    source += "threading.Thread(target=time.sleep, args=(3600,)).start()\n"
    assert (await read(write(tmp_path, source))).application.name == "shop"


async def test_declare_passes_on_output_of_the_import(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = await read(write(tmp_path, SERVICE + "print('hello')\n"))
    assert found.application.name == "shop"
    assert capfd.readouterr().out == "hello\n"


async def test_declare_cancelled_kills_and_reaps_the_import(tmp_path: Path) -> None:
    source = write(tmp_path, "import time\ntime.sleep(3600)\n")
    with trio.move_on_after(0.5):
        await declare(source, dict(os.environ))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)
