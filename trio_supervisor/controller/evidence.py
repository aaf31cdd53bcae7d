"""What is kept of processes that came to a bad end, for whoever looks later."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import trio
from attrs import define

logger = logging.getLogger(__name__)

# The newest are kept: of a crash loop the last ones tell as much as all.
_KEPT: Final = 50
_SUFFIX: Final = ".json"


@define(eq=False)
class EvidenceStore:
    """A directory with a file for each bad end; made when there is one."""

    directory: str

    def path_for(self, name: str, process_id: int) -> str:
        """Return the path of the file of a process that ends now."""
        moment = datetime.fromtimestamp(time.time(), UTC)
        stamp = moment.strftime("%Y%m%dT%H%M%S") + f"{moment.microsecond // 1000:03}Z"
        return os.path.join(self.directory, f"{stamp}-{name}-{process_id}{_SUFFIX}")

    async def save(self, path: str, record: Mapping[str, Any]) -> None:
        """Write *record*; what cannot be written is logged, and nothing else happens.

        Shielded, as it is quick; on a disk that hangs it is a thread that waits.
        """
        try:
            await trio.to_thread.run_sync(
                self._save, path, json.dumps(record, indent=1, default=str)
            )
        except OSError as exc:
            logger.warning("no post-mortem of %s: %s", record.get("name"), exc)

    def _save(self, path: str, text: str) -> None:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        # Under another name first: who lists them sees whole ones only.
        temporary = f"{path}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text + "\n")
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        self._prune()

    def _prune(self) -> None:
        names = sorted(n for n in os.listdir(self.directory) if n.endswith(_SUFFIX))
        for name in names[:-_KEPT]:
            os.unlink(os.path.join(self.directory, name))
