"""Keep the recent CPU and memory of each process, for the sparklines."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

LENGTH: Final = 60
"""Samples kept of each process."""


class UsageHistory:
    """Recent samples by pid; those of processes that have exited are dropped."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[float | None, float | None]]] = {}

    def add(self, process_id: int, cpu: float | None, memory: float | None) -> None:
        """Add one sample of a process."""
        kept = self._samples.setdefault(process_id, deque(maxlen=LENGTH))
        kept.append((cpu, memory))

    def keep_only(self, process_ids: Collection[int]) -> None:
        """Drop the samples of all other processes."""
        for process_id in self._samples.keys() - set(process_ids):
            del self._samples[process_id]

    def cpu(self, process_id: int) -> list[float | None]:
        """Return the shares of a processor, the oldest first."""
        return [cpu for cpu, _ in self._samples.get(process_id, ())]

    def memory(self, process_id: int) -> list[float | None]:
        """Return the sizes of memory [bytes], the oldest first."""
        return [memory for _, memory in self._samples.get(process_id, ())]
