"""Count calls and connections, in memory that the controller reads."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import define, field, frozen

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

_PROBED, _PROBE = PROBE


def _places(name: str) -> dict[tuple[str, ...], int]:
    """Return the place of the first number of each series of *name*, by labels."""
    metric, offset = SUPERVISOR_METRICS[name], SUPERVISOR_METRICS.offset(name)
    width = width_of(metric)
    return {
        labels: offset + width * index for index, labels in enumerate(series_of(metric))
    }


@frozen
class _OperationPlaces:
    """Places of one operation's numbers."""

    calls: dict[str, int]
    """By result."""
    duration: int | None
    """None: it is a stream, which lasts as long as its reader wants."""


def _operation_places() -> dict[str, _OperationPlaces]:
    calls: dict[str, dict[str, int]] = {}
    for (do, result), place in _places(CALLS).items():
        calls.setdefault(do, {})[result] = place
    durations = _places(DURATION)
    streams = {do for do, type_ in OPERATIONS.items() if type_.spec.is_stream}
    return {
        do: _OperationPlaces(places, None if do in streams else durations[do,])
        for do, places in calls.items()
    }


_OF_OPERATIONS: Final = _operation_places()
_OF_OTHERS: Final = _OF_OPERATIONS[OTHER]
_CONNECTIONS: Final = _places(CONNECTIONS)
_durations = SUPERVISOR_METRICS[DURATION]
assert isinstance(_durations, Histogram)
_BOUNDS: Final = _durations.buckets
_SUM: Final = len(_BOUNDS) + 1
"""Where a histogram's sum follows its buckets."""


@define(eq=False)
class CallStats:
    """Counts what `SUPERVISOR_METRICS` declares."""

    _numbers: Numbers = field(factory=lambda: local_numbers(SUPERVISOR_METRICS.slots))
    _in_progress: int = field(default=0, init=False)
    """Calls that are not answered yet, streams excepted."""
    _ended: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    async def wait_idle(self) -> None:
        """Wait until no call is in progress; streams do not count."""
        await trio.lowlevel.checkpoint()
        while self._in_progress:
            await self._ended.park()

    def answered(self, call: IncomingCall, began: float, result: str = "ok") -> None:
        """Count a call that is over.

        Args:
            began: When it came, by `time.perf_counter` [s].
        """
        do, numbers = call.do, self._numbers
        if do == _PROBED and call.arguments == _PROBE:
            return  # each connection of the command line makes it, and it must fail
        places = _OF_OPERATIONS.get(do, _OF_OTHERS)
        numbers[places.calls[result]] += 1
        if (place := places.duration) is not None:
            seconds = time.perf_counter() - began
            numbers[place + bisect_left(_BOUNDS, seconds)] += 1
            numbers[place + _SUM] += seconds

    async def watched(
        self, answer: Coroutine[Any, Any, Fields], call: IncomingCall, began: float
    ) -> Fields:
        """Await *answer*, and count *call*."""
        type_ = OPERATIONS.get(call.do)
        count = int(type_ is None or not type_.spec.is_stream)
        result = "failed"
        self._in_progress += count
        try:
            fields = await answer
            result = "ok"
            return fields
        except trio.Cancelled:
            result = "cancelled"
            raise
        finally:
            self._in_progress -= count
            self._ended.unpark_all()
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
