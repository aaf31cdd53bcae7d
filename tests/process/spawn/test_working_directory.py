"""The working directory, by the name that the shell reports."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trio_supervisor.process.spawn.working_directory import (
    absolute,
    enter,
    import_path,
    working_directory,
)


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A symbolic link to a release; the current directory was entered through it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    link.symlink_to("one")
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", str(link))
    return link


def switch(link: Path) -> None:
    new = link.with_name("new")
    new.symlink_to("two")
    new.rename(link)


def test_working_directory_uses_pwd(current: Path) -> None:
    assert working_directory() == str(current)
    assert absolute("service.py") == f"{current}/service.py"
    assert absolute("../x") == f"{current.parent}/x"
    assert absolute("/a/../b") == "/b"


@pytest.mark.parametrize("told", ["", "/", "/no/such", "current", "."])
def test_working_directory_ignores_wrong_pwd(
    current: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("PWD", told)
    assert working_directory() == os.getcwd() == str(current.parent / "one")


def test_import_path_uses_pwd(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", os.getcwd() + "/lib", "/usr/lib", "rel"])
    assert import_path() == (
        str(current),
        f"{current}/lib",
        "/usr/lib",
        f"{current}/rel",
    )


def test_enter_returns_unless_kept(current: Path) -> None:
    """The link is followed to its current destination."""
    switch(current)
    one, two = str(current.parent / "one"), str(current.parent / "two")
    with enter(str(current)):
        assert os.getcwd() == two
    assert os.getcwd() == one
    with pytest.raises(LookupError), enter(str(current)):
        raise LookupError
    assert os.getcwd() == one
    with enter(str(current)) as entered:
        entered.keep()
    assert os.getcwd() == two
    with enter(None) as entered:
        entered.keep()
    assert os.getcwd() == two


def test_left_returns_to_the_directory_that_was_entered(current: Path) -> None:
    """Although the link has moved on."""
    switch(current)
    with enter(str(current)) as directory:
        with directory.left():
            assert os.getcwd() == str(current.parent / "one")
            current.unlink()
        assert os.getcwd() == str(current.parent / "two")
        directory.keep()
    assert os.getcwd() == str(current.parent / "two")


def test_left_changes_nothing_if_nothing_was_entered(current: Path) -> None:
    with enter(None) as directory, directory.left():
        assert os.getcwd() == str(current.parent / "one")


def test_enter_returns_to_removed_directory(current: Path) -> None:
    switch(current)
    (current.parent / "one").rmdir()
    with enter(str(current)):
        assert os.getcwd() == str(current.parent / "two")
    with pytest.raises(FileNotFoundError):
        os.getcwd()
    assert absolute("/a") == "/a"
    with pytest.raises(FileNotFoundError):
        absolute("a")
