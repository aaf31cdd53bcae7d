"""Finding the files that a process has loaded, and changes of these."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_supervisor.process.code import loaded
from trio_supervisor.process.code.loaded import first_modified, loaded_files, remember


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Importable modules, by name; unloaded at the end of the test."""
    names = ("ld_early", "ld_own", "ld_late")
    paths = {name: tmp_path / f"{name}.py" for name in names}
    for path in paths.values():
        path.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(loaded, "_early_imports", [])
    importlib.invalidate_caches()
    yield {name: str(path) for name, path in paths.items()}
    for name in paths:
        sys.modules.pop(name, None)


def found(files: dict[str, str], started_at: float) -> dict[str, float]:
    by_path = dict(loaded_files(started_at))
    return {name: by_path[path] for name, path in files.items() if path in by_path}


def test_loaded_files_since_start(files: dict[str, str]) -> None:
    """Includes earlier ones that no fingerprint covers, with their time."""
    importlib.import_module("ld_early")
    importlib.import_module("ld_own")
    remember(100.0, {Path(files["ld_own"]).resolve()})
    assert found(files, 200.0) == {"ld_early": 100.0}
    importlib.import_module("ld_late")
    assert found(files, 200.0) == {"ld_early": 100.0, "ld_late": 200.0}


def test_loaded_files_all_covered_yields_later_files_only(
    files: dict[str, str],
) -> None:
    importlib.import_module("ld_early")
    remember(100.0, None)
    importlib.import_module("ld_late")
    assert found(files, 200.0) == {"ld_late": 200.0}


def test_loaded_files_ignores_installed_modules() -> None:
    assert not [path for path, _ in loaded_files(0.0) if "site-packages" in path]
    assert not [path for path, _ in loaded_files(0.0) if path.endswith("/os.py")]


def test_first_modified_finds_changed_or_removed_file(tmp_path: Path) -> None:
    """Even with the same size and modification time."""
    same, other, gone = (str(tmp_path / name) for name in ("same", "other", "gone"))
    for path in (same, other):
        Path(path).write_text("1")
    later = time.time() + 60
    assert first_modified([(same, later), (other, later)]) is None
    assert first_modified([(same, later), (gone, later)]) == gone
    stat = os.stat(other)
    Path(other).write_text("2")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert first_modified([(same, later), (other, os.stat(other).st_ctime)]) == other
