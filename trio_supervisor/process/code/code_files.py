"""Hash the source files that an import has read, and detect changes."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from typing import Final

from trio_supervisor.process.code import configuration_files
from trio_supervisor.process.code.own_code import own_source_of

_MAX_FILES: Final = 20_000
_MAX_SIZE: Final = 64 * 1024 * 1024
_CHUNK: Final = 1024 * 1024
_UNREADABLE: Final = ""


def files_of_import() -> dict[str, str]:
    """Return a hash of each source file of the application imported by this process."""
    found: dict[str, str] = {}
    for module in list(sys.modules.values()):
        if (path := own_source_of(module)) is not None:
            found[path] = _hash_of(path)
    found.update((path, _hash_of(path)) for path in configuration_files.read)
    return found


def files_from_answer(value: object) -> dict[str, str] | None:
    """Return the `files_of_import` that another process has sent; None: invalid."""
    if not isinstance(value, dict) or len(value) > _MAX_FILES:
        return None
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return None
    return value


def changed_file(files: Mapping[str, str]) -> str | None:
    """Return one of *files* that has changed; None: all are unchanged."""
    return next((path for path in files if _hash_of(path) != files[path]), None)


def differing_file(old: Mapping[str, str], new: Mapping[str, str]) -> str | None:
    """Return a file whose content differs between two imports, or None.

    In another environment, an import may also read additional files (PYTHONPATH).
    """
    return next((path for path in old if new.get(path, old[path]) != old[path]), None)


def _hash_of(path: str) -> str:
    digest = hashlib.sha256()
    try:
        # O_NONBLOCK: a FIFO or a device in its place must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return _UNREADABLE
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_SIZE:
            return _UNREADABLE
        while piece := os.read(descriptor, _CHUNK):
            digest.update(piece)
    except OSError:
        return _UNREADABLE
    finally:
        os.close(descriptor)
    return digest.hexdigest()
