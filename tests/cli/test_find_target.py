"""Test which file is served where no target is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_supervisor.cli.find_target import find_target
from trio_supervisor.errors import TargetError


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_find_target_prefers_earlier_names(directory: Path) -> None:
    names = ["Procfile", "pyproject.toml", "supervisor.toml", "service.py"]
    for name in names:
        (directory / name).write_text("[tool.trio_supervisor]\n")
        assert find_target() == name


def test_find_target_ignores_pyproject_without_our_table(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("[tool.ruff]\n")
    (directory / "Procfile").write_text("a: b\n")
    assert find_target() == "Procfile"
    (directory / "pyproject.toml").write_text("[tool")
    assert find_target() == "pyproject.toml"


def test_find_target_without_file_says_what_it_looks_for(directory: Path) -> None:
    with pytest.raises(TargetError) as caught:
        find_target()
    message = str(caught.value)
    assert f"{directory} contains none of service.py, supervisor.toml, " in message
