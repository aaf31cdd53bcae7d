"""Test that modules import only along the layers of the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "trio_supervisor"
ROOT = Path(__file__).parents[1] / PACKAGE
PATHS = sorted(ROOT.rglob("*.py"))

_PURE = {"errors", "policy", "wire"}
_ANYWHERE = {"_version", "_location", "_construction"}
_BELOW_THE_LAYERS = _PURE | {
    *("application", "config", "owned_files", "tasks", "diagnostics", "process", "link")
}
MAY_IMPORT = {
    "_version": set[str](),
    "_location": set[str](),
    "_construction": set[str](),
    "errors": set[str](),
    "owned_files": set[str](),
    "tasks": set[str](),
    # What policy decides about and returns are messages: declared once, in wire.
    "policy": {"errors", "wire"},
    "wire": {"errors"},
    "application": {"errors", "policy", "wire"},
    "config": {"application", "errors", "policy", "wire"},
    "diagnostics": {"errors", "wire"},
    # These two must not import each other.
    "process": _BELOW_THE_LAYERS - {"process", "link"},
    "link": _BELOW_THE_LAYERS - {"process", "link"},
    # Nor these three: they communicate by wire messages and share application.
    "controller": _BELOW_THE_LAYERS,
    "supervisor": _BELOW_THE_LAYERS,
    "worker": _BELOW_THE_LAYERS,
}
MAY_IMPORT_ALL = {
    "cli",
    "events",
    "web",
    "contrib",
    "testing",
    "pytest_plugin",
    "reference",
    "__init__",
    "__main__",
}
LAYERS = MAY_IMPORT.keys() | MAY_IMPORT_ALL

PURE = _PURE | {"application"}
IO = {"trio", "anyio", "psutil", "os", "random", "socket", "subprocess", "time"}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([PACKAGE, *parts]).removesuffix(".__init__")


MODULES = {_module(path): path for path in PATHS}


def _layer(module: str) -> str:
    """Return the layer of *module*: the part after the package's name."""
    return module.split(".")[1] if "." in module else "__init__"


def _imports(path: Path) -> Iterator[str]:
    """Yield every module that *path* imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"{path}: a relative import"
                assert module
                for alias in names:
                    submodule = f"{module}.{alias.name}"
                    yield submodule if _is_module(submodule) else module
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def _is_module(name: str) -> bool:
    # An empty folder counts as a module too.
    top, *parts = name.split(".")
    return top == PACKAGE and (name in MODULES or ROOT.joinpath(*parts).is_dir())


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module may import its own layer and the layers below it."""
    layer = _layer(module)
    assert layer in LAYERS, f"{layer}: unknown layer; add it to MAY_IMPORT"
    if layer in MAY_IMPORT_ALL:
        return
    for name in _imports(MODULES[module]):
        if name.split(".")[0] == PACKAGE:
            assert _layer(name) in MAY_IMPORT[layer] | _ANYWHERE | {layer}, name


# The folders of a layer, each with the folders that it may import. Modules directly in
# the layer belong to the folder "".
FOLDERS = {
    "controller": {
        "child": set[str](),
        "launch": {"child"},
        "post_mortem": {"child"},
        "fleet": {"child", "launch"},
        "telemetry": set[str](),
    },
    "diagnostics": {
        "stacks": set[str](),
        "tasks": {"stacks"},
        "locks": {"stacks"},
        "descriptors": {"stacks"},
        "remote": {"stacks"},
        "profile": {"stacks", "tasks"},
        "snapshot": set[str](),
        "memory": {"stacks", "snapshot"},
        "heap": {"stacks", "snapshot", "memory"},
    },
}


def _folder(module: str) -> str:
    """Return the folder of *module* inside its layer."""
    path = MODULES.get(module)
    parts = module.split(".")
    if path is None or path.name == "__init__.py":
        return parts[2] if len(parts) > 2 else ""
    return parts[2] if len(parts) > 3 else ""


@pytest.mark.parametrize(
    "module", [name for name in MODULES if _layer(name) in FOLDERS]
)
def test_folders_import_in_declared_direction(module: str) -> None:
    layer, folder = _layer(module), _folder(module)
    assert folder in {"", *FOLDERS[layer]}, (
        f"{folder}: unknown folder; add it to FOLDERS"
    )
    if not folder:
        return
    for name in _imports(MODULES[module]):
        if name.split(".")[0] == PACKAGE and _layer(name) == layer:
            assert _folder(name) in FOLDERS[layer][folder] | {"", folder}, name


def test_class_names_are_unique() -> None:
    """One name, one thing: a reader need not ask which Restart is meant."""
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_test_files_mirror_modules() -> None:
    """tests/wire/test_codec.py tests wire/codec.py; so does test_codec_bounds.py."""
    unmatched = []
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        folder = path.relative_to(Path(__file__).parent).parent
        if folder.parts[:1] in {(), ("e2e",)}:
            continue
        words = path.stem.removeprefix("test_").split("_")
        stems = ("_".join(words[:n]) for n in range(len(words), 0, -1))
        if not any((ROOT / folder / f"{stem}.py").exists() for stem in stems):
            unmatched.append(str(path))
    assert not unmatched


@pytest.mark.parametrize("module", [name for name in MODULES if _layer(name) in PURE])
def test_pure_layer_imports_no_io(module: str) -> None:
    """It imports no event loop, clock, randomness or operating system."""
    for name in _imports(MODULES[module]):
        assert name.split(".")[0] not in IO, name


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if _layer(name) in {"controller", "process", "link"}],
)
def test_nurseries_are_opened_by_tasks(module: str) -> None:
    """A KeyboardInterrupt can break a task of any other: see `tasks.open_nursery`."""
    assert "trio.open_nursery" not in MODULES[module].read_text(encoding="utf-8")


def test_version_imports_nothing() -> None:
    """Builds read the version without installing anything."""
    assert not list(_imports(ROOT / "_version.py"))


def test_no_import_cycles() -> None:
    """The error, if any, names the cycle."""
    graph = {
        module: MODULES.keys() & set(_imports(path)) - {module}
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("wire.session", {"trio", "anyio", "attrs", "cattrs", "click", "rich"}),
        ("policy.restart", {"trio", "anyio", "cattrs"}),
    ],
)
def test_light_module_loads_no_heavy_one(module: str, not_loaded: set[str]) -> None:
    """Nor indirectly: a short command has to answer in milliseconds."""
    program = f"import sys, {PACKAGE}.{module}; print(*sys.modules)"
    loaded = subprocess.check_output(
        [sys.executable, "-c", program], cwd=ROOT.parent, text=True
    )
    assert f"{PACKAGE}.{module}" in loaded.split()
    assert not not_loaded.intersection(loaded.split())
