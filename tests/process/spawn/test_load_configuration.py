"""Test that targets may be configuration files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_supervisor.errors import SpecError, TargetError
from trio_supervisor.process.code import configuration_files
from trio_supervisor.process.spawn.load import load_application, load_code

CODE = "async def work(worker):\n    pass\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module, which is unloaded at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "configured_code.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("configured_code", None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("supervisor.toml", '[services.a]\ntarget = "configured_code:work"'),
        (
            "pyproject.toml",
            '[tool.trio_supervisor.services.a]\ntarget = "configured_code:work"',
        ),
        ("Procfile", "a: true"),
        ("Procfile.dev", "a: true"),
    ],
)
def test_configuration_is_loaded_once(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(text)
    application = load_application(f"{path}:application")
    assert [service.name for service in application.services] == ["a"]
    assert os.fspath(path) in configuration_files.read
    path.unlink()
    assert load_application(os.fspath(path)) is application


def test_worker_needs_no_secrets_nor_variables(directory: Path) -> None:
    """It may run as a user who cannot read them."""
    (directory / "b.toml").write_text(
        '[services.b]\ntarget = "configured_code:work"\nbackend = "asyncio"\n'
    )
    (directory / "a.toml").write_text(
        'include = ["b.toml"]\nenv_file = "gone"\n[env]\nX = { file = "gone" }\n'
        '[services.a]\ntarget = "configured_code:work"\ncount = "${GONE}"\n'
        '[services.c]\ncommand = "${GONE}"\n'
        '[groups.g]\nchildren = ["a", "c"]\n'
    )
    application = load_code("a.toml")
    assert [service.name for service in application.services] == ["a", "b"]
    assert load_code("a.toml") is application
    with pytest.raises(SpecError, match=r"^4 problems:"):
        load_application("a.toml")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("configured_code:wrk", "configured_code has no 'wrk' (did you mean 'work'?)"),
        ("no_such_code:work", "no module named 'no_such_code'"),
        (
            "configured_code",
            "expected 'package.module:function', got 'configured_code'",
        ),
        ("code.py:work", "expected 'package.module:function', got 'code.py:work'"),
    ],
)
def test_unknown_target_names_file_and_line(
    directory: Path, target: str, problem: str
) -> None:
    (directory / "x.toml").write_text(f'[services.a]\ntarget = "{target}"')
    with pytest.raises(SpecError) as caught:
        load_application("x.toml")
    assert str(caught.value) == f"x.toml, line 2: services.a.target: {problem}"


def test_missing_file_or_name_raises(directory: Path) -> None:
    with pytest.raises(TargetError, match=r"^gone\.toml: file not found$"):
        load_application("gone.toml")
    with pytest.raises(TargetError, match=r"^x\.toml has no 'other': a configuration"):
        load_application("x.toml:other")
    (directory / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(TargetError, match=r"has no table \[tool\]$"):
        load_application("pyproject.toml")
