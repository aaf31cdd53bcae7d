"""Checking the requirements of services, without changing anything."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.kits.log_services import open_log_socket
from trio_supervisor.application import Application, Command, Listen, Probe, Service
from trio_supervisor.application.requirements import (
    LogService,
    Program,
    requirements_of,
)
from trio_supervisor.process.preflight import (
    directory_problem,
    output_problem,
    without_removed,
)
from trio_supervisor.process.preflight import problems_of as look


async def work(worker: object) -> None: ...


def problems(*services: Any, with_sockets: bool = True) -> list[str]:
    application = Application(services)
    names = [service.name for service in services]
    found = requirements_of(application, names, with_sockets=with_sockets)
    return [str(error) for error in look(found, dict(os.environ))]


def test_problems_of_lists_each_with_field_and_service(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    found = problems(
        Command(
            "cache",
            ["no-such-cache"],
            pre_stop=["no-such-hook"],
            startup=Probe.command(["no-such-probe"]),
            log_file=f"{missing}/cache.log",
        ),
        Service(
            "web",
            work,
            directory=missing,
            sockets={"http": Listen(f"unix://{missing}/web.sock")},
        ),
    )
    assert [line.partition(": ")[0] for line in found] == [
        "services[0].arguments[0]",
        "services[0].startup.arguments[0]",
        "services[0].pre_stop[0]",
        "services[0].log_file",
        "services[1].directory",
        "services[1].sockets['http']",
    ]
    assert "cache: program 'no-such-cache' not found in PATH (" in found[0]
    assert f"cache: cannot write to {missing}/cache.log: directory " in found[3]
    assert f"web: the working directory {missing} does not exist" in found[4]
    assert f"web: cannot listen on unix:{missing}/web.sock: {missing} do" in found[5]


def test_problems_of_names_input_that_cannot_be_read(tmp_path: Path) -> None:
    missing, good = str(tmp_path / "missing"), tmp_path / "good"
    good.touch()
    found = problems(
        Command("a", ["cat"], stdin=missing),
        Command("b", ["cat"], stdin=str(tmp_path)),
        Command("c", ["cat"], stdin=str(good)),
    )
    assert found == [
        f"services[0].stdin: a: cannot read {missing}: No such file or directory",
        f"services[1].stdin: b: cannot read {tmp_path}: Is a directory",
    ]


def test_problems_of_names_log_service_that_does_not_listen(tmp_path: Path) -> None:
    """One in the network may come up later."""
    missing, stale, good = tmp_path / "missing", tmp_path / "stale", tmp_path / "good"
    with open_log_socket(good), socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(stale))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
            gone.bind(str(tmp_path / "gone"))
        found = problems(
            Command("a", ["cat"], log_to=f"journald:{missing}"),
            Command("b", ["cat"], log_to=f"syslog:{tmp_path}/gone"),
            Command("c", ["cat"], log_to=f"syslog:{stale}"),
            Command("d", ["cat"], log_to=f"syslog:{good}"),
            Command("e", ["cat"], log_to="syslog:udp://nowhere.invalid:514"),
        )
    assert found == [
        f"services[0].log_to: a: cannot log to journald ({missing}): "
        "the socket does not exist",
        f"services[1].log_to: b: cannot log to syslog ({tmp_path}/gone): "
        "nothing listens at the socket",
        f"services[2].log_to: c: cannot log to syslog ({stale}): "
        "it is not a datagram socket",
    ]


def test_without_removed_leaves_out_log_services(tmp_path: Path) -> None:
    """One that does not listen now may be restarting."""
    command = Command("a", ["cat"], log_to=f"journald:{tmp_path}/no")
    found = requirements_of(Application([command]), ["a"])
    assert [type(each) for each in found] == [Program, LogService]
    assert [type(each) for each in without_removed(found)] == [Program]


def test_problems_of_uses_path_and_directory_of_service(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    environment = {"PATH": str(tmp_path)}
    assert problems(Command("a", ["tool"], environment=environment)) == []
    assert problems(Command("a", ["./tool"], directory=str(tmp_path))) == []
    (lonely,) = problems(Command("a", ["sh"], environment=environment))
    assert f"program 'sh' not found in PATH ({tmp_path})" in lonely


@pytest.mark.parametrize("condition", ["started", "ready", "exited_ok"])
def test_problems_of_skips_services_with_dependencies(condition: Any) -> None:
    """A dependency may install the program or mount the directory."""
    restart = "on-failure" if condition == "exited_ok" else "always"
    needed = Command("needed", ["true"], restart=restart)
    fields: dict[str, Any] = {
        "depends_on": {"needed": condition},
        "log_file": "/no/such/log",
    }
    assert problems(needed, Command("a", ["/no/such/program"], **fields)) == []
    assert problems(needed, Service("a", work, directory="/no/such", **fields)) == []
    on_path = problems(needed, Command("a", ["no-such-program"], **fields))
    assert len(on_path) == (0 if condition == "exited_ok" else 1)


def test_problems_of_skips_indirect_dependents() -> None:
    found = problems(
        Command("install", ["true"], restart="on-failure"),
        Command("db", ["no-such-db"], depends_on={"install": "exited_ok"}),
        Command("web", ["no-such-web"], depends_on={"db": "ready"}),
    )
    assert found == []


def test_problems_of_creates_nothing(tmp_path: Path) -> None:
    before = os.stat(tmp_path).st_mtime_ns
    assert output_problem(str(tmp_path / "new.log")) == ""
    assert list(tmp_path.iterdir()) == []
    assert os.stat(tmp_path).st_mtime_ns == before


def test_output_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    assert output_problem(str(file)) == ""
    assert output_problem(str(tmp_path)) == "it is a directory"
    assert "a symbolic link; name the file" in output_problem(str(tmp_path / "link"))
    assert output_problem(str(tmp_path / "fifo")) == ""
    assert "is not a directory" in output_problem(str(file / "under"))
    assert "does not exist; create it" in output_problem(str(tmp_path / "no/a.log"))
    assert output_problem("/dev/null") == ""


def test_directory_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert directory_problem(str(tmp_path)) == ""
    assert directory_problem(str(file)) == "is not a directory"
    assert directory_problem(str(tmp_path / "no")) == "does not exist"
    assert "a part of its path" in directory_problem(str(file / "under"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_problems_of_missing_permissions(tmp_path: Path) -> None:
    closed, fixed = tmp_path / "closed", tmp_path / "fixed"
    closed.mkdir(mode=0)
    fixed.mkdir(mode=0o500)
    file = tmp_path / "file"
    file.touch(mode=0o400)
    assert "cannot be entered by user" in directory_problem(str(closed))
    assert "is not accessible for user" in directory_problem(str(closed / "in"))
    assert "is not accessible for user" in output_problem(str(closed / "a.log"))
    assert "cannot create files in" in output_problem(str(fixed / "a.log"))
    assert output_problem(str(file)) == "Permission denied"
