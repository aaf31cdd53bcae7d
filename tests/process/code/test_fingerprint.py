"""Fingerprints of the code that a service runs."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from trio_supervisor.process.code.fingerprint import code_of, fingerprint

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
    """Imported modules of an application."""
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
def test_fingerprint_changes_with_imported_files(modules: Path, file: str) -> None:
    """Imported directly or indirectly, from packages, by relative names; reversible."""
    before = fingerprint("fp_main")
    assert len(before) == 64
    assert fingerprint("fp_main") == before
    path = modules / file
    path.write_text(FILES[file] + "# changed\n")
    assert fingerprint("fp_main") != before
    path.write_text(FILES[file])
    assert fingerprint("fp_main") == before


def test_fingerprint_ignores_files_not_imported(modules: Path) -> None:
    before = fingerprint("fp_main")
    (modules / "fp_other.py").write_text("changed = True\n")
    (modules / "fp_new.py").write_text("")
    assert fingerprint("fp_main") == before


def test_fingerprint_differs_between_modules(modules: Path) -> None:
    assert fingerprint("fp_main") != fingerprint("fp_other")


@pytest.mark.parametrize("name", ["json", "trio", "sys", "no_such_module_at_all"])
def test_fingerprint_of_foreign_module_is_empty(name: str) -> None:
    """Standard library, installed, built-in and missing modules."""
    assert fingerprint(name) == ""


def test_fingerprint_of_removed_file_is_empty(modules: Path) -> None:
    """It must not equal the previous fingerprint."""
    (modules / "fp_side.py").unlink()
    assert fingerprint("fp_main") == ""


def test_fingerprint_of_file_with_syntax_error_changes(modules: Path) -> None:
    before = fingerprint("fp_main")
    (modules / "fp_side.py").write_text("def (\n")
    assert fingerprint("fp_main") not in ("", before)


def test_is_own_directory_with_prefix_of_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as /opt/app2 beside /opt/app."""
    module = "trio_supervisor.process.code.own_code"
    monkeypatch.setattr(f"{module}._INSTALLED", (str(tmp_path / "lib"),))
    (tmp_path / "lib2").mkdir()
    (tmp_path / "lib2" / "fp_beside.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "lib2"))
    importlib.import_module("fp_beside")
    try:
        assert fingerprint("fp_beside") != ""
    finally:
        del sys.modules["fp_beside"]


SERVICES = {
    "fq_service.py": """
import fq_web
from fq_jobs import nightly
LIMIT = 1
def shared(): return LIMIT
def web(): return fq_web.page(shared())
def lazy():
    from fq_lazy import thing
    return thing
def job(): return 2
inner = (lambda: lambda: 1)()
application = (web, nightly)
""",
    "fq_web.py": "def page(x): return x\n",
    "fq_jobs.py": "def nightly(): pass\n",
    "fq_lazy.py": "import fq_lazy_too\nthing = 1\n",
    "fq_lazy_too.py": "",
}


def prints(directory: Path) -> dict[str, str]:
    """Return fingerprints from a process that imports the files in *directory* now."""
    for name in [name for name in sys.modules if name.startswith("fq_")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    for path in directory.rglob("__pycache__"):
        shutil.rmtree(path)
    service = importlib.import_module("fq_service")
    names = ("web", "lazy", "job", "nightly")
    return {name: code_of(getattr(service, name)).fingerprint for name in names}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("fq_service.py", "return 2", "return 3", {"job"}),
        ("fq_service.py", "LIMIT = 1", "LIMIT = 9", {"web"}),
        ("fq_service.py", "page(shared())", "page(1)", {"web"}),
        ("fq_service.py", "return 2", "return 2  # two", set()),
        ("fq_service.py", "(web, nightly)", "(nightly,)", set()),
        ("fq_service.py", "LIMIT = 1", "LIMIT = 1\nprint()", {"web", "lazy", "job"}),
        ("fq_web.py", "return x", "return x + 1", {"web"}),
        ("fq_jobs.py", "pass", "return 1", {"nightly"}),
        ("fq_lazy.py", "thing = 1", "thing = 2", {"lazy"}),
        ("fq_lazy_too.py", "", "x = 1", {"lazy"}),
    ],
)
def test_code_of_distinguishes_services_in_one_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    old: str,
    new: str,
    changed: set[str],
) -> None:
    """Each covers what its function can reach, even if not imported yet."""
    for name, source in SERVICES.items():
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = prints(tmp_path)
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new, 1))
    after = prints(tmp_path)
    assert "" not in before.values()
    assert {name for name in before if before[name] != after[name]} == changed
    assert not (file == "fq_lazy.py" and "fq_lazy" in sys.modules), "it was imported"


def test_code_of_nested_function_is_unknown() -> None:
    def inner() -> None:
        """Made by a function."""

    assert code_of(inner).fingerprint == ""
    assert code_of(partial(inner)).fingerprint == ""
    assert code_of(print).fingerprint == ""


def test_code_of_partial_includes_constants(modules: Path) -> None:
    """Other arguments cannot be compared, so the code is unknown."""
    path = modules / "fp_parts.py"
    path.write_text("def work(n, w): ...\n\ndef other(): ...\n")
    importlib.invalidate_caches()
    work = importlib.import_module("fp_parts").work
    parts = [
        partial(work),
        partial(work, 5),
        partial(work, "a" * 999 + "b"),
        partial(work, "a" * 999 + "c"),
        partial(work, [1, (2.5, None)]),
        partial(work, n={"a": b"b"}),
        partial(partial(work, 1), w=2),
    ]
    before = [code_of(part).fingerprint for part in parts]
    assert len({*before}) == len(parts)
    assert all(len(each) == 64 for each in before)
    path.write_text("def work(n, w): ...\n\ndef other(): pass\n")
    assert [code_of(part).fingerprint for part in parts] == before
    path.write_text("def work(n, w): pass\n\ndef other(): pass\n")
    assert not {code_of(part).fingerprint for part in parts} & {*before}
    for argument in (object(), [object()], Path("a"), work, {1, 2}):
        assert code_of(partial(work, argument)).fingerprint == ""
    assert code_of(partial(partial(work, object()), 1)).fingerprint == ""
