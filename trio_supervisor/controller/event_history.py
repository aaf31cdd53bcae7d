"""Keep events on disk, so that they outlive the controller; ``events --since``."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import orjson
from attrs import define, field

from trio_supervisor.errors import SpecError
from trio_supervisor.owned_files import check_directory, check_links
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.files import OutputFiles, is_removed
from trio_supervisor.process.output.rotation import RotationPlan
from trio_supervisor.process.spawn.environment import EVENTS_FILE
from trio_supervisor.process.threads import run_in_thread

logger = logging.getLogger(__name__)

# Some ten thousand events; two such files are kept.
_PLAN: Final = RotationPlan(max_size=4 * 1024 * 1024, keep=1, is_compressed=False)
# How long the end of a controller may wait for a slow disk [s].
_CLOSE_WITHIN: Final = 1.0


@define(eq=False)
class EventHistory:
    """A file with a JSON object a line; written by a thread, so that nothing waits.

    If it was the first to need the directory, and nothing went wrong until the end, it
    leaves nothing behind.
    """

    _directory: str
    _files: OutputFiles = field(factory=OutputFiles, init=False)
    _destination: Destination | None = field(default=None, init=False)
    _was_created: bool = field(default=False, init=False)
    """Whether the directory was not there before."""
    _is_calm: bool = field(default=True, init=False)
    """Whether no event was a warning, or worse."""

    def open(self) -> None:
        """Open the file, or create it with its directory; log a failure."""
        try:
            check_links(self._directory)
            self._was_created |= not os.path.lexists(self._directory)
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            check_directory(self._directory)
            path = os.path.join(self._directory, EVENTS_FILE)
            self._destination = self._files.open(path, "events", EVENTS_FILE, _PLAN)
        except (OSError, SpecError) as exc:
            # Not everybody has a place for them: a container may be read-only.
            logger.info("events are not kept on disk: %s", exc)

    def add(self, entry: Mapping[str, Any], level: int) -> None:
        """Write *entry*, an event of this level of logging. Never waits."""
        self._is_calm &= level < logging.WARNING
        kept = self._destination
        if kept is not None and is_removed(kept.descriptor):
            self._files.release("events")
            self._destination = None
            self.open()
        if self._destination is not None:
            option = orjson.OPT_APPEND_NEWLINE
            self._destination.put(orjson.dumps(entry, default=str, option=option))

    def close(self) -> None:
        """Write what is left, for up to a second."""
        if self._destination is not None:
            self._destination.drain(_CLOSE_WITHIN)
        self._files.close()
        if self._was_created and self._is_calm:
            self._remove()

    def _remove(self) -> None:
        """Remove the directory if nothing else is in it."""
        with suppress(OSError):
            if os.listdir(self._directory) == [EVENTS_FILE]:
                os.unlink(os.path.join(self._directory, EVENTS_FILE))
                os.rmdir(self._directory)


@asynccontextmanager
async def open_event_history(
    directory: str | None,
) -> AsyncIterator[EventHistory | None]:
    """Keep a history in *directory* for the length of the block; None: keep none."""
    if directory is None:
        yield None
        return
    history = EventHistory(directory)
    await run_in_thread(history.open)
    try:
        yield history
    finally:
        await run_in_thread(history.close)
