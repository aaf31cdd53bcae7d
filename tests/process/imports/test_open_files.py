"""What is closed at the end of a forked child, and what makes children differ."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from trio_supervisor.process.imports import open_files
from trio_supervisor.process.imports.open_files import ImportedObjects, close_files
from trio_supervisor.process.spawn import forked_child


def test_file_that_another_thread_uses_is_given_up_on_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(open_files, "_PATIENCE", 0.01)
    release = threading.Event()
    open_files._run([release.wait])
    release.set()
    assert "a file is in use by another thread" in capfd.readouterr().err


def test_imported_knows_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    with open(tmp_path / "before", "w") as before:
        before.write("held back")
        imported = ImportedObjects()
        imported.find()
        assert (tmp_path / "before").read_text() == "held back"
        with open(tmp_path / "after", "w") as after:
            assert before in imported
            assert after not in imported
            assert before in imported.files


def test_outer_file_is_closed_before_what_it_writes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = open(tmp_path / "file", "wb")  # noqa: SIM115 (left open on purpose)
    outer = io.TextIOWrapper(inner)
    outer.write("x")
    # Of this process, only these two are a child's.
    monkeypatch.setattr(
        "gc.get_objects", lambda number: [inner, outer] if number == 2 else []
    )
    close_files(ImportedObjects())
    assert (tmp_path / "file").read_text() == "x"
    assert outer.closed


def test_numpy_is_seeded_only_where_its_generator_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numpy = ModuleType("numpy")
    seeds: list[int] = []
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    monkeypatch.delitem(sys.modules, "numpy.random", raising=False)
    forked_child._reseed()  # numpy has no attribute random yet
    assert seeds == []
    random = ModuleType("numpy.random")
    random.seed = lambda: seeds.append(1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "numpy.random", random)
    forked_child._reseed()
    assert seeds == [1]
