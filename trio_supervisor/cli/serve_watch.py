"""Watch the code of an application for changes, for ``serve --watch``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Final

from trio_supervisor.errors import PlatformError
from trio_supervisor.process.spawn.code_source import (
    PROCFILE,
    is_config,
    is_path,
    split_target,
)

# How long after the watch has begun files changed before it are searched for [ms].
_FIRST_SCAN: Final = 200


def check_watchable() -> None:
    """Check that ``--watch`` can work.

    Raises:
        PlatformError: watchfiles is not installed.
    """
    if importlib.util.find_spec("watchfiles") is None:
        raise PlatformError(
            "--watch needs watchfiles: pip install 'trio_supervisor[watch]'"
        )


def watched_directory(source: str) -> str:
    """Return the directory whose Python files belong to the target *source*."""
    where, _ = split_target(source)
    if is_path(where):
        return os.path.dirname(os.path.abspath(where))
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(where.partition(".")[0])
        if spec is not None and spec.origin is not None:
            return os.path.dirname(os.path.abspath(spec.origin))
    return os.getcwd()


async def watch(source: str, since: int) -> AsyncIterator[str]:
    """Yield the names of changed files as a text, at each change.

    Args:
        since: Changes from this time on count [ns since 1970].
    """
    from watchfiles import awatch

    directory = watched_directory(source)
    changed = _Changes(directory, since, is_config(split_target(source)[0]))
    async for changes in awatch(
        directory,
        watch_filter=changed.is_code,
        rust_timeout=_FIRST_SCAN,
        yield_on_timeout=True,
    ):
        if text := changed.describe({path for _, path in changes}):
            yield text


def wait_for_change(source: str, since: int) -> str:
    """Block until a file has changed since *since*; return the names as a text."""
    from watchfiles import watch as watch_now

    directory = watched_directory(source)
    changed = _Changes(directory, since, is_config(split_target(source)[0]))
    for changes in watch_now(
        directory,
        watch_filter=changed.is_code,
        rust_timeout=_FIRST_SCAN,
        yield_on_timeout=True,
        raise_interrupt=True,
    ):
        if text := changed.describe({path for _, path in changes}):
            return text
    return "nothing"


class _Changes:
    """Changed files, including those changed during the import, before the watch."""

    def __init__(self, directory: str, since: int, is_configured: bool) -> None:
        from watchfiles import Change, PythonFilter

        extra = (".toml", ".env", PROCFILE) if is_configured else ()
        self.is_code: Callable[[Change, str], bool] = PythonFilter(
            extra_extensions=extra
        )
        self._modified = Change.modified
        self._directory = directory
        self._since: int | None = since

    def describe(self, paths: set[str]) -> str:
        """Return the names of *paths*; the first call adds earlier changes."""
        if self._since is not None:
            paths |= set(self._changed_since(self._since))
            self._since = None
        return _describe_paths(self._directory, paths)

    def _changed_since(self, moment: int) -> Iterator[str]:
        for directory, _, names in os.walk(self._directory):
            for path in (os.path.join(directory, name) for name in names):
                with suppress(OSError):
                    # ctime: a copied or unpacked file keeps the mtime of its source.
                    is_new = os.stat(path).st_ctime_ns > moment
                    if is_new and self.is_code(self._modified, path):
                        yield path


def _describe_paths(directory: str, paths: set[str]) -> str:
    names = sorted(os.path.relpath(path, directory) for path in paths)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
