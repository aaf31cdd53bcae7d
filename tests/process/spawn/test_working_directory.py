"""The directory that we were started in, by its name."""

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
    """A link to a release, which is the current directory by that name."""
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


def test_the_name_that_the_shell_tells_is_kept(current: Path) -> None:
    assert working_directory() == str(current)
    assert absolute("service.py") == f"{current}/service.py"
    assert absolute("../x") == f"{current.parent}/x"
    assert absolute("/a/../b") == "/b"


@pytest.mark.parametrize("told", ["", "/", "/no/such", "current", "."])
def test_a_name_that_leads_elsewhere_is_not_believed(
    current: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("PWD", told)
    assert working_directory() == os.getcwd() == str(current.parent / "one")


def test_import_paths_are_named_by_it(
    current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", os.getcwd() + "/lib", "/usr/lib", "rel"])
    assert import_path() == (
        str(current),
        f"{current}/lib",
        "/usr/lib",
        f"{current}/rel",
    )


def test_a_directory_is_entered_for_a_trial(current: Path) -> None:
    """By what its name leads to now; back again unless told to stay."""
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


def test_the_way_back_is_open_where_a_release_was_removed(current: Path) -> None:
    switch(current)
    (current.parent / "one").rmdir()
    with enter(str(current)):
        assert os.getcwd() == str(current.parent / "two")
    with pytest.raises(FileNotFoundError):
        os.getcwd()
    assert absolute("/a") == "/a"
    with pytest.raises(FileNotFoundError):
        absolute("a")
