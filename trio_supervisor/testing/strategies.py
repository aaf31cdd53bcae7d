"""Hypothesis strategies for what may go wrong."""

from __future__ import annotations

import signal
from typing import Final

from hypothesis import strategies as st

from trio_supervisor.testing.fault_plan import (
    ClockSet,
    ConnectionFails,
    DiskFull,
    Exits,
    Fault,
    FaultPlan,
    Hangs,
    Killed,
    Reloaded,
    Restarted,
    StartsBadly,
    Stopped,
    SupervisorKilled,
    Suspended,
)

_TICK: Final = 0.25
"""Moments are multiples of it, so that a failing plan shrinks to round numbers [s]."""
_WORKERS: Final = 8
_DURATIONS: Final = (1.0, 45.0)
"""Within and beyond the default ``health_check_timeout`` [s]."""

_CONNECTION_KINDS: Final = (
    *("lost", "half line", "half open"),
    *("refused", "twice", "late"),
)


def faults(
    *, within: float = 60.0, at_most: int = 5, workers: int = _WORKERS
) -> st.SearchStrategy[FaultPlan]:
    """Return a strategy for plans of up to *at_most* faults.

    Plans shrink to fewer faults, to earlier ones, and to a SIGKILL of the first worker.
    Example::

        @given(faults(within=30))
        @in_virtual_time
        async def test_no_job_is_lost(plan: FaultPlan) -> None:
            async with simulated(application) as simulation:
                await plan.run(simulation)
                await trio.sleep(300)
            assert queue.is_empty

    Args:
        within: Limit of the moments [s].
        at_most: Limit of the number of faults.
        workers: How many workers the application has, all services together.
    """
    last = round(within / _TICK)
    moments = st.integers(0, last).map(lambda number: number * _TICK)
    steps = st.lists(st.tuples(moments, one_fault(workers)), max_size=at_most)
    return steps.map(FaultPlan.of)


def one_fault(workers: int = _WORKERS) -> st.SearchStrategy[Fault]:
    """Return a strategy for one fault of any kind."""
    worker = st.integers(0, workers - 1)
    durations = st.sampled_from(_DURATIONS)
    signals = st.sampled_from([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
    kinds = ("slow", "never ready", "stubborn", "EAGAIN", "ENOMEM", "EMFILE")
    connections = st.sampled_from(_CONNECTION_KINDS)
    return st.one_of(
        st.builds(Killed, worker, signals),
        st.builds(Exits, worker, st.sampled_from([1, 0, 3])),
        st.builds(StartsBadly, worker, st.sampled_from(kinds)),
        st.builds(Hangs, worker, st.none() | durations),
        st.builds(Stopped, worker, durations),
        st.builds(SupervisorKilled),
        st.builds(ConnectionFails, worker, connections, durations),
        st.builds(DiskFull, durations),
        st.builds(ClockSet, st.sampled_from([3600.0, -3600.0, 1e6])),
        st.builds(Restarted),
        st.builds(Reloaded, st.booleans()),
        st.builds(Suspended, st.sampled_from([10.0, 600.0])),
    )
