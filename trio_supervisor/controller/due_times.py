"""Keep on disk when scheduled runs are due, so that a restart misses none."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from attrs import define, field

from trio_supervisor.owned_files import check_directory, check_links
from trio_supervisor.process.threads import run_in_thread

logger = logging.getLogger(__name__)

DUE_TIMES: Final = "due-times"
"""Name of the file in the state directory."""
_MAX_SIZE: Final = 1_000_000


@define(eq=False)
class DueTimesFile:
    """A file with the moment of the next run of each schedule."""

    _path: str | None
    """None: nothing is kept."""
    _saved: dict[str, float] = field(factory=dict, init=False)
    _has_failed: bool = field(default=False, init=False)

    async def load(self) -> dict[str, float]:
        """Return the moments that were saved last, by schedule; may be empty."""
        if self._path is None:
            return {}
        self._saved = await self._read(self._path)
        return dict(self._saved)

    async def save(self, times: Mapping[str, float]) -> None:
        """Save *times* if they are not; log a failure instead of raising it.

        Otherwise a run could be repeated after a restart: what fails, as on a full
        disk, is tried again by the next call.
        """
        if self._path is None or times == self._saved:
            return
        try:
            await self._write(self._path, json.dumps(dict(times), indent=1))
            self._saved = dict(times)
            self._has_failed = False
        except OSError as exc:
            if not self._has_failed:  # once, and not again at every run
                logger.warning("cannot save when scheduled runs are due: %s", exc)
            self._has_failed = True

    async def _read(self, path: str) -> dict[str, float]:
        return await run_in_thread(_load, path)

    async def _write(self, path: str, text: str) -> None:
        await run_in_thread(_save, path, text)


def _load(path: str) -> dict[str, float]:
    try:
        check_links(os.path.dirname(path))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(path, flags), encoding="utf-8") as file:
            found = json.loads(file.read(_MAX_SIZE))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        logger.warning("cannot read when scheduled runs are due: %s", exc)
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(name): float(moment)
        for name, moment in found.items()
        if isinstance(moment, int | float) and not isinstance(moment, bool)
    }


def _save(path: str, text: str) -> None:
    directory = os.path.dirname(path)
    check_links(directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    check_directory(directory)
    temporary = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
