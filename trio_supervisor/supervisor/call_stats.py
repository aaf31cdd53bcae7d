"""Count calls and connections, in memory that the controller reads."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.link.foreign_server import PROBE
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.policy.metrics import OTHER, Histogram, series_of, width_of
from trio_supervisor.policy.supervisor_metrics import (
    CALLS,
    CONNECTIONS,
    DURATION,
    SUPERVISOR_METRICS,
)
from trio_supervisor.process.shared_numbers import Numbers, local_numbers
from trio_supervisor.wire.protocol import OPERATIONS


def _places(name: str) -> dict[tuple[str, ...], int]:
    """Return the place of the first number of each series of *name*, by labels."""
    metric, offset = SUPERVISOR_METRICS[name], SUPERVISOR_METRICS.offset(name)
    width = width_of(metric)
    return {
        labels: offset + width * index for index, labels in enumerate(series_of(metric))
    }


_CALLS: Final = _places(CALLS)
_DURATIONS: Final = _places(DURATION)
_CONNECTIONS: Final = _places(CONNECTIONS)
_durations = SUPERVISOR_METRICS[DURATION]
assert isinstance(_durations, Histogram)
_BOUNDS: Final = _durations.buckets


@define(eq=False)
class CallStats:
    """Counts what `SUPERVISOR_METRICS` declares."""

    _numbers: Numbers = field(factory=lambda: local_numbers(SUPERVISOR_METRICS.slots))

    def answered(self, call: IncomingCall, began: float, result: str = "ok") -> None:
        """Count a call that is over.

        Args:
            began: When it came, by `time.perf_counter` [s].
        """
        if (call.do, call.arguments) == PROBE:
            return  # each connection of the command line makes it, and it must fail
        numbers = self._numbers
        do = call.do if (call.do, result) in _CALLS else OTHER
        numbers[_CALLS[do, result]] += 1
        type_ = OPERATIONS.get(call.do)
        if type_ is not None and type_.spec.is_stream:
            return
        seconds = time.perf_counter() - began
        place = _DURATIONS[do,]
        numbers[place + bisect_left(_BOUNDS, seconds)] += 1
        numbers[place + len(_BOUNDS) + 1] += seconds

    async def watched(
        self, answer: Coroutine[Any, Any, Fields], call: IncomingCall, began: float
    ) -> Fields:
        """Await *answer*, and count *call*."""
        result = "failed"
        try:
            fields = await answer
            result = "ok"
            return fields
        except trio.Cancelled:
            result = "cancelled"
            raise
        finally:
            self.answered(call, began, result)

    def dispatch(self, answer: Answer, call: IncomingCall, began: float) -> Answer:
        """Count *call* now, or once its *answer* is there."""
        if isinstance(answer, Coroutine):
            return self.watched(answer, call, began)
        self.answered(call, began)
        return answer

    @contextmanager
    def connection(self) -> Iterator[ConnectionStats]:
        """Count a connection for the length of the block."""
        stats = ConnectionStats(self._numbers)
        stats.add(1)
        try:
            yield stats
        finally:
            stats.add(-1)


@define(eq=False)
class ConnectionStats:
    """One connection: that of a client until it registers as a worker's."""

    _numbers: Numbers
    _kind: str = field(default="client", init=False)

    def add(self, count: int) -> None:
        """Count *count* connections of its kind."""
        self._numbers[_CONNECTIONS[self._kind,]] += count

    def is_worker(self) -> None:
        """Count it as a worker's from now on."""
        self.add(-1)
        self._kind = "worker"
        self.add(1)
