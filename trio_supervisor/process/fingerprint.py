"""Which code a service runs, as far as its source files tell.

The module that defines the target, and all modules that it imports, directly or not,
are hashed: those of the application itself, not the standard library's and not what is
installed. What is imported by a name that is computed is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

_INSTALLED: Final = tuple(
    str(Path(path).resolve())
    for path in {
        *(sysconfig.get_paths().values()),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
    if path not in (sys.prefix, sys.exec_prefix)
)
_OWN: Final = str(Path(__file__).resolve().parents[1])


def fingerprint(module_name: str) -> str:
    """Return a hash over the files of *module_name* and of all that it imports.

    Empty where nothing is known: a module without a file.
    """
    files: dict[str, bytes] = {}
    left, seen = [module_name], {module_name}
    while left:
        module = sys.modules.get(left.pop())
        if module is None or (path := _file_of(module)) is None:
            continue
        try:
            source = path.read_bytes()
        except OSError:
            return ""
        files[str(path)] = source
        for name in _imports(source, module):
            if name not in seen:
                seen.add(name)
                left.append(name)
    if not files:
        return ""
    digest = hashlib.sha256()
    for path_text, source in sorted(files.items()):
        digest.update(path_text.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(hashlib.sha256(source).digest())
    return digest.hexdigest()


def _file_of(module: ModuleType) -> Path | None:
    """Return the source of *module*, where it is the application's own."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    if any(path.is_relative_to(directory) for directory in (*_INSTALLED, _OWN)):
        return None
    return path


def _imports(source: bytes, module: ModuleType) -> Iterator[str]:
    """Yield the names of modules that *source* may import, packages around them too."""
    package = getattr(module, "__package__", "") or ""
    for name in _names(source):
        base = _absolute(name, package)
        parts = base.split(".")
        for end in range(1, len(parts) + 1):
            yield ".".join(parts[:end])


@cache
def _names(source: bytes) -> tuple[str, ...]:
    found: list[str] = []
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names]
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = "." * level + (origin or "")
                found.append(base)
                separator = "" if base.endswith(".") else "."
                found += [f"{base}{separator}{alias.name}" for alias in names]
    return tuple(found)


def _absolute(name: str, package: str) -> str:
    stripped = name.lstrip(".")
    level = len(name) - len(stripped)
    if not level:
        return name
    parts = package.split(".")
    base = parts[: len(parts) - level + 1]
    return ".".join([*base, *([stripped] if stripped else [])])
