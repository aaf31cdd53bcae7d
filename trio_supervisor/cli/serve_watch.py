"""Waiting for the code to change: what ``serve --watch`` does."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Final

from trio_supervisor.errors import PlatformError
from trio_supervisor.process.spawn.code_source import is_path, split_target

# From when the watching has begun to when it is looked at what it has missed [ms].
_FIRST_LOOK: Final = 200


def check_watchable() -> None:
    """Refuse at once what cannot be done later.

    Raises:
        PlatformError: the library that watches files is not installed.
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
    """Yield what changed, a few names in words, each time that something did.

    Args:
        since: What has changed from then on counts [ns since 1970].
    """
    from watchfiles import awatch

    directory = watched_directory(source)
    changed = _Changes(directory, since)
    async for changes in awatch(
        directory,
        watch_filter=changed.is_code,
        rust_timeout=_FIRST_LOOK,
        yield_on_timeout=True,
    ):
        if words := changed.words({path for _, path in changes}):
            yield words


def wait_for_change(source: str, since: int) -> str:
    """Block until something changed, or has changed *since*; return what, in words."""
    from watchfiles import watch as watch_now

    directory = watched_directory(source)
    changed = _Changes(directory, since)
    for changes in watch_now(
        directory,
        watch_filter=changed.is_code,
        rust_timeout=_FIRST_LOOK,
        yield_on_timeout=True,
        raise_interrupt=True,
    ):
        if words := changed.words({path for _, path in changes}):
            return words
    return "nothing"


class _Changes:
    """What was changed, also before the watching began: while all was imported."""

    def __init__(self, directory: str, since: int) -> None:
        from watchfiles import Change, PythonFilter

        self.is_code: Callable[[Change, str], bool] = PythonFilter()
        self._modified = Change.modified
        self._directory = directory
        self._since: int | None = since

    def words(self, paths: set[str]) -> str:
        """Return in words what changed; the first call looks at what it missed."""
        if self._since is not None:
            paths |= set(self._changed_since(self._since))
            self._since = None
        return _in_words(self._directory, paths)

    def _changed_since(self, moment: int) -> Iterator[str]:
        for directory, _, names in os.walk(self._directory):
            for path in (os.path.join(directory, name) for name in names):
                with suppress(OSError):
                    # Not its own time, which may be that of where it comes from.
                    is_new = os.stat(path).st_ctime_ns > moment
                    if is_new and self.is_code(self._modified, path):
                        yield path


def _in_words(directory: str, paths: set[str]) -> str:
    names = sorted(os.path.relpath(path, directory) for path in paths)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
