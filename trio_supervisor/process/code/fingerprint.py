"""Fingerprint the code that a service runs, from its source files.

The fingerprint covers the parts of the target's module that its function can reach, and
all modules that these import, directly or indirectly. Only the application's own
modules count, not the standard library or installed packages. An import inside a
function counts even before it is executed. Imports with a computed name are not found
here, but by `loaded`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from attrs import frozen

from trio_supervisor.application import Application, Command, Group, Service
from trio_supervisor.process.code.own_code import is_own
from trio_supervisor.process.code.reachable import reachable

_DECLARATIONS: Final = (Application, Command, Group, Service)


@frozen
class Code:
    """The code that a service runs."""

    fingerprint: str
    """A hash of the code; empty: unknown."""
    files: frozenset[Path] = frozenset()
    """Its files, with resolved paths."""


_UNKNOWN: Final = Code("")


@frozen
class _Source:
    path: Path
    package: str
    """Package that its relative imports refer to."""


def code_of(target: Callable[..., Any]) -> Code:
    """Return the code that *target* can reach.

    If *target* is a plain function, only the parts of its module that it can reach
    count; imported modules count as a whole. A partial counts as its function with its
    arguments, if these are constants.
    """
    if isinstance(target, functools.partial):
        return _code_of_partial(target)
    function = inspect.unwrap(target)
    module = sys.modules.get(str(getattr(function, "__module__", "")))
    name = getattr(function, "__qualname__", "")
    source = None if module is None else _source_of(module)
    if module is None or source is None or "<locals>" in name:
        return _UNKNOWN  # the code of a nested function cannot be determined
    if not inspect.isfunction(function) or getattr(module, name, None) is not target:
        return _code_in(_files_of([module.__name__]))
    try:
        text = source.path.read_bytes()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return _UNKNOWN
    body = reachable(tree, name, _declarations_of(module))
    files = _files_of(set(_imports(_names(body), source.package)))
    if files is None:
        return _UNKNOWN
    if source.path not in files:  # else a module that it imports imports it as a whole
        part = ast.Module(body=body, type_ignores=[])
        files[source.path] = ast.dump(part).encode("utf-8", "surrogatepass")
    return _code_in(files)


def _code_of_partial(target: functools.partial[Any]) -> Code:
    code = code_of(target.func)
    arguments = (target.args, target.keywords)
    if not (code.fingerprint and _is_constant(arguments)):
        return _UNKNOWN
    text = f"{code.fingerprint}{arguments!r}".encode("utf-8", "surrogatepass")
    return Code(hashlib.sha256(text).hexdigest(), code.files)


def _is_constant(value: object) -> bool:
    """Return whether ``repr(value)`` is complete, and the same in every process."""
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return all(map(_is_constant, value))
    if isinstance(value, dict) and type(value) is dict:
        return all(map(_is_constant, (*value, *value.values())))
    return value is None or type(value) in (bool, int, float, str, bytes)


def fingerprint(module_name: str) -> str:
    """Return a hash of the files of *module_name* and of all modules it imports.

    Empty if unknown: a module without a file.
    """
    return _code_in(_files_of([module_name])).fingerprint


def _files_of(names: Iterable[str]) -> dict[Path, bytes] | None:
    """Return the sources of *names* and of all they import; None: unreadable."""
    files: dict[Path, bytes] = {}
    left, seen = list(names), set(names)
    while left:
        name = left.pop()
        if (source := _find(name)) is None:
            continue
        try:
            text = source.path.read_bytes()
        except OSError:
            return None
        files[source.path] = text
        for other in _imports(_names_in(text), source.package):
            if other not in seen:
                seen.add(other)
                left.append(other)
    return files


def _code_in(files: dict[Path, bytes] | None) -> Code:
    if not files:
        return _UNKNOWN
    digest = hashlib.sha256()
    for path, source in sorted(files.items()):
        digest.update(str(path).encode("utf-8", "surrogateescape") + b"\0")
        digest.update(hashlib.sha256(source).digest())
    return Code(digest.hexdigest(), frozenset(files))


def _declarations_of(module: ModuleType) -> set[str]:
    """Return the names of *module* whose values are only declarations."""

    def is_declaration(value: object) -> bool:
        if isinstance(value, (list, tuple)):
            return bool(value) and all(map(is_declaration, value))
        return isinstance(value, _DECLARATIONS)

    return {name for name, value in vars(module).items() if is_declaration(value)}


def _find(name: str) -> _Source | None:
    """Return the source of the module *name* if it belongs to the application.

    The module need not be imported yet.
    """
    if (module := sys.modules.get(name)) is not None:
        return _source_of(module)
    path: Iterable[str] | None = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        known = sys.modules.get(".".join(parts[:end]))
        if known is not None:
            path = getattr(known, "__path__", None)
        elif (spec := _spec_of(".".join(parts[:end]), path)) is None:
            return None
        else:
            path = spec.submodule_search_locations
            if end == len(parts):
                package = name if path is not None else name.rpartition(".")[0]
                return _own_source(spec.origin, package)
        if path is None and end < len(parts):
            return None
    return None


def _spec_of(name: str, path: Iterable[str] | None) -> Any:
    try:
        return PathFinder.find_spec(name, None if path is None else list(path))
    except (ImportError, ValueError, OSError):
        return None


def _source_of(module: ModuleType) -> _Source | None:
    package = getattr(module, "__package__", "") or ""
    return _own_source(getattr(module, "__file__", None), package)


def _own_source(file: object, package: str) -> _Source | None:
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    return _Source(path, package) if is_own(path) else None


def _imports(names: Iterable[str], package: str) -> Iterator[str]:
    """Yield the modules that *names* may refer to, including parent packages."""
    for name in names:
        parts = _absolute(name, package).split(".")
        for end in range(1, len(parts) + 1):
            yield ".".join(parts[:end])


@cache
def _names_in(source: bytes) -> tuple[str, ...]:
    try:
        return tuple(_names(ast.parse(source).body))
    except (SyntaxError, ValueError):
        return ()


def _names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that *body* imports, as written."""
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Import(names=names):
                    yield from (alias.name for alias in names)
                case ast.ImportFrom(module=origin, names=names, level=level):
                    base = "." * level + (origin or "")
                    yield base
                    separator = "" if base.endswith(".") else "."
                    yield from (f"{base}{separator}{alias.name}" for alias in names)


def _absolute(name: str, package: str) -> str:
    stripped = name.lstrip(".")
    level = len(name) - len(stripped)
    if not level:
        return name
    parts = package.split(".")
    base = parts[: len(parts) - level + 1]
    return ".".join([*base, *([stripped] if stripped else [])])
