"""Closing the files of a forked child, and reseeding its random generators."""

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


def test_close_skips_file_locked_by_another_thread_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(open_files, "_LOCKED_FILE_TIMEOUT", 0.01)
    release = threading.Event()
    open_files._run([release.wait])
    release.set()
    assert "a file is locked by another thread" in capfd.readouterr().err


def test_imported_objects_contain_only_earlier_files(tmp_path: Path) -> None:
    with open(tmp_path / "before", "w") as before:
        before.write("held back")
        imported = ImportedObjects()
        imported.find()
        assert (tmp_path / "before").read_text() == "held back"
        with open(tmp_path / "after", "w") as after:
            assert before in imported
            assert after not in imported
            assert before in imported.files


def test_close_files_flushes_wrapper_before_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = open(tmp_path / "file", "wb")  # noqa: SIM115 (left open on purpose)
    outer = io.TextIOWrapper(inner)
    outer.write("x")
    # Only these two count as files of the child.
    monkeypatch.setattr(
        "gc.get_objects", lambda number: [inner, outer] if number == 2 else []
    )
    close_files(ImportedObjects())
    assert (tmp_path / "file").read_text() == "x"
    assert outer.closed


def test_reseed_seeds_numpy_only_if_its_generator_is_loaded(
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
