"""Store post-mortems of processes that crashed or were killed."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.owned_files import check_directory, check_links
from trio_supervisor.process.threads import run_in_thread

logger = logging.getLogger(__name__)

# Per worker, so that a crash loop does not evict the post-mortems of others.
_KEPT_PER_WORKER: Final = 10
_KEPT: Final = 500
_SUFFIX: Final = ".json"
_FILE: Final = re.compile(r"\d{8}T\d{9}Z-(.+)-\d+\.json")
# Parts that differ between equal crashes: addresses, and numbers in a line.
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]+")
_NUMBER: Final = re.compile(r"\d+")


def surplus(names: Iterable[str]) -> list[str]:
    """Return the files to remove: the oldest of the workers with the most."""
    by_worker: dict[str, list[str]] = {}
    for name in sorted(names):
        if (match := _FILE.fullmatch(name)) is not None:
            by_worker.setdefault(match[1], []).append(name)
    removed = []
    for files in by_worker.values():
        removed += files[:-_KEPT_PER_WORKER]
        del files[:-_KEPT_PER_WORKER]
    while sum(map(len, by_worker.values())) > _KEPT:
        most = max(by_worker.values(), key=len)
        removed.append(most.pop(0))
    return removed


def signature_of(record: Mapping[str, Any]) -> str:
    """Return the signature of a record: equal for crashes of the same kind."""
    stacks = [_ADDRESS.sub("0x", str(e["stacks"])) for e in record["evidence"]]
    fault = _ADDRESS.sub("0x", str(record["fault"]))
    last = _NUMBER.sub("0", str(record["last_line"]))
    return repr((record["cause"], record["returncode"], stacks, fault, last))


@define
class _Run:
    """Consecutive equal crashes of one worker."""

    signature: str
    since: str
    path: str
    count: int = 1


@define(eq=False)
class PostMortemStore:
    """Directory of post-mortem files; created with the first one.

    For consecutive equal crashes of a worker only the newest file is kept, with their
    number. At most 10 files are kept per worker, and 500 in all.
    """

    directory: str
    _wall: Callable[[], float] = time.time
    """The system's clock [s since the epoch]."""
    _runs: dict[str, _Run] = field(factory=dict, init=False)
    """Latest run of equal crashes, by worker name."""
    _has_saved: bool = field(default=False, init=False)
    _saving: trio.Lock = field(factory=trio.Lock, init=False)

    def path_for(self, name: str, process_id: int) -> str:
        """Return the path of the post-mortem of a process that exits now."""
        moment = datetime.fromtimestamp(self._wall(), UTC)
        stamp = moment.strftime("%Y%m%dT%H%M%S") + f"{moment.microsecond // 1000:03}Z"
        return os.path.join(self.directory, f"{stamp}-{name}-{process_id}{_SUFFIX}")

    async def save(self, path: str, record: Mapping[str, Any]) -> None:
        """Write *record*; log a failure instead of raising it.

        Shielded from cancellation, since it is quick; a disk that hangs blocks only a
        thread.
        """
        try:
            # One after another: a file is superseded only once it exists.
            with trio.CancelScope(shield=True):
                async with self._saving:
                    record, superseded = self._fold(path, record)
                    text = json.dumps(record, indent=1, default=str)
                    await self._write(path, text, superseded)
        except OSError as exc:
            logger.warning(
                "cannot save the post-mortem of %s: %s", record.get("name"), exc
            )

    def _fold(
        self, path: str, record: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], str | None]:
        """Count *record*; return it with its number, and the path that it replaces."""
        signature, run = signature_of(record), self._runs.get(record["name"])
        if run is None or run.signature != signature:
            run = self._runs[record["name"]] = _Run(signature, record["time"], path)
            return {**record, "repeats": 1, "since": run.since}, None
        superseded, run.path = run.path, path
        run.count += 1
        return {**record, "repeats": run.count, "since": run.since}, superseded

    async def _write(self, path: str, text: str, superseded: str | None) -> None:
        await run_in_thread(self._save, path, text, superseded)

    def _save(self, path: str, text: str, superseded: str | None) -> None:
        check_links(self.directory)
        if not os.path.isdir(self.directory):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            if self._has_saved:
                logger.warning("%s was removed; recreated", self.directory)
        self._has_saved = True
        check_directory(self.directory)
        # Write to a temporary name first, so that a listing shows complete files only.
        temporary = f"{path}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text + "\n")
            os.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._prune(superseded)

    def _prune(self, superseded: str | None) -> None:
        """Remove surplus files; another controller may do so at the same time."""
        try:
            self._remove(superseded)
        except OSError as exc:  # which is no fault of the one that was just saved
            logger.warning("cannot remove old post-mortems: %s", exc)

    def _remove(self, superseded: str | None) -> None:
        leaving = [os.path.join(self.directory, n) for n in self._surplus()]
        for each in filter(None, [superseded, *leaving]):
            with suppress(FileNotFoundError):  # already removed
                os.unlink(each)

    def _surplus(self) -> list[str]:
        return surplus(os.listdir(self.directory))
