"""Which code a service runs, by its files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_supervisor.process.fingerprint import fingerprint

FILES = {
    "fp_main.py": "import fp_pkg.deep\nfrom fp_side import thing\nimport json, trio\n",
    "fp_side.py": "thing = 1\n",
    "fp_other.py": "import fp_side\n",
    "fp_pkg/__init__.py": "",
    "fp_pkg/deep.py": "from . import near\nfrom .near import value\n",
    "fp_pkg/near.py": "value = 1\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Some modules of an application, imported."""
    for name, source in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    importlib.import_module("fp_main")
    importlib.import_module("fp_other")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("fp_")]:
        del sys.modules[name]


@pytest.mark.parametrize("file", [name for name in FILES if name != "fp_other.py"])
def test_a_change_of_what_it_imports_is_a_change(modules: Path, file: str) -> None:
    """Directly or not, in packages, by relative names; and it can be undone."""
    before = fingerprint("fp_main")
    assert len(before) == 64
    assert fingerprint("fp_main") == before
    path = modules / file
    path.write_text(FILES[file] + "# changed\n")
    assert fingerprint("fp_main") != before
    path.write_text(FILES[file])
    assert fingerprint("fp_main") == before


def test_what_it_does_not_import_changes_nothing(modules: Path) -> None:
    before = fingerprint("fp_main")
    (modules / "fp_other.py").write_text("changed = True\n")
    (modules / "fp_new.py").write_text("")
    assert fingerprint("fp_main") == before


def test_two_modules_have_two_fingerprints(modules: Path) -> None:
    assert fingerprint("fp_main") != fingerprint("fp_other")


@pytest.mark.parametrize("name", ["json", "trio", "sys", "no_such_module_at_all"])
def test_what_is_not_the_applications_own_has_none(name: str) -> None:
    """Of the standard library, installed, built in, not there."""
    assert fingerprint(name) == ""


def test_a_file_that_is_gone_is_unknown(modules: Path) -> None:
    """Rather than the same as before."""
    (modules / "fp_side.py").unlink()
    assert fingerprint("fp_main") == ""


def test_a_file_with_a_mistake_in_it_is_still_a_change(modules: Path) -> None:
    before = fingerprint("fp_main")
    (modules / "fp_side.py").write_text("def (\n")
    assert fingerprint("fp_main") not in ("", before)


def test_a_directory_that_begins_as_an_installed_one_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /opt/app2 beside /opt/app."""
    module = "trio_supervisor.process.fingerprint"
    monkeypatch.setattr(f"{module}._INSTALLED", (str(tmp_path / "lib"),))
    (tmp_path / "lib2").mkdir()
    (tmp_path / "lib2" / "fp_beside.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "lib2"))
    importlib.import_module("fp_beside")
    try:
        assert fingerprint("fp_beside") != ""
    finally:
        del sys.modules["fp_beside"]
