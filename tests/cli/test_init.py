"""Test the starters: valid, and never written over anything."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from tests.kits.configured import configured
from trio_supervisor.application import Application
from trio_supervisor.cli.init import PYTHON, TOML, run_init, run_schema
from trio_supervisor.errors import SupervisorError


def test_init_writes_valid_toml_with_its_schema(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    run_init(Namespace(directory=str(directory), toml=True))
    text = (directory / "supervisor.toml").read_text()
    assert text.startswith("#:schema ./supervisor.schema.json\n")
    assert (directory / "supervisor.schema.json").is_file()
    (service,) = configured(tmp_path, text).application.services
    assert (service.name, service.count) == ("ticker", 2)


def test_commented_lines_of_toml_are_valid_too(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ") if "=" in line or line.startswith("# [") else line
        for line in TOML.splitlines()
    ]
    text = "\n".join(lines).replace("package.module:function", "time:sleep")
    for name in ("conf.d/*.toml", "/run/secrets/db"):
        text = text.replace(name, "*.none" if "*" in name else "db")
    found = configured(tmp_path, text, files={"db": "x", ".env": "A=1\n"}).application
    assert [each.name for each in found.services] == ["ticker", "web", "jobs"]


def test_init_writes_valid_python(tmp_path: Path) -> None:
    run_init(Namespace(directory=str(tmp_path), toml=False))
    assert (tmp_path / "service.py").read_text() == PYTHON
    names: dict[str, object] = {}
    exec(compile(PYTHON, "service.py", "exec"), names)
    assert isinstance(names["application"], Application)


@pytest.mark.parametrize("toml", [True, False])
def test_init_never_overwrites(tmp_path: Path, toml: bool) -> None:
    path = tmp_path / ("supervisor.toml" if toml else "service.py")
    path.write_text("mine")
    with pytest.raises(SupervisorError, match="exists already; nothing was written"):
        run_init(Namespace(directory=str(tmp_path), toml=toml))
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_init_in_place_that_is_no_directory_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SupervisorError, match=r"/file: "):
        run_init(Namespace(directory=str(tmp_path / "file"), toml=False))


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_schema(Namespace())
    assert '"title": "supervisor.toml of trio_supervisor"' in capsys.readouterr().out
