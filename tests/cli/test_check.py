"""Test what a check finds without starting anything."""

from __future__ import annotations

import json
import socket
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.cli.check import run_check
from trio_supervisor.errors import SpecError, TargetError

VALID = '[services.a]\ncommand = ["sleep", "1"]\ncount = 2\n'
INVALID = """\
[services.a]
command = "no-such-program"
sockets = { http = "tcp://127.0.0.1:PORT" }
[services.b]
command = ["true"]
directory = "gone"
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(**arguments: Any) -> None:
    defaults = {"target": None, "socket": None, "import_timeout": 60.0, "json": False}
    run_check(Namespace(**{**defaults, **arguments}))


def test_check_of_valid_application_says_so(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "supervisor.toml").write_text(VALID)
    check()
    expected = "supervisor.toml: valid (1 service, 2 processes)\n"
    assert capsys.readouterr().out == expected


def test_check_lists_all_that_is_missing_with_its_line(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        (directory / "x.toml").write_text(INVALID.replace("PORT", port))
        with pytest.raises(SystemExit) as caught:
            check(target="x.toml", json=True)
    assert caught.value.code == 10
    report = json.loads(capsys.readouterr().out)
    assert report["services"] == {"a": 1, "b": 1}
    starts = [
        "x.toml, line 2: services.a.command[0]: a: ",
        "x.toml, line 6: services.b.directory: b: the working directory ",
        "x.toml, line 3: services.a.sockets['http']: cannot listen on 127.0.0.1:",
    ]
    for problem, start in zip(report["problems"], starts, strict=True):
        assert problem.startswith(start)


def test_check_of_mistake_names_its_line(directory: Path) -> None:
    (directory / "x.toml").write_text("[services.a]\ncount = 1")
    with pytest.raises(SpecError, match=r"^x\.toml, line 1: services\.a: expected one"):
        check(target="x.toml")


def test_check_of_hanging_import_ends(directory: Path) -> None:
    (directory / "service.py").write_text("import time\ntime.sleep(1000)\n")
    with pytest.raises(TargetError, match=r"the import did not finish within 0.5 s"):
        check(import_timeout=0.5)
