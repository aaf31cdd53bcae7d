"""Test rolling restarts with workers that become available again or fail to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.rolling import RollingLimits, WorkerFacts, next_batch

limits = st.builds(
    RollingLimits,
    max_unavailable=st.none() | st.integers(1, 4),
    max_concurrently=st.none() | st.integers(1, 4),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[WorkerFacts]:
    """Draw workers of up to three services, some of them unavailable."""
    return [
        WorkerFacts(f"{service}.{index}", service, draw(st.booleans()))
        for service in "abc"
        for index in range(draw(st.integers(0, 5)))
    ]


def away(workers: list[WorkerFacts], in_progress: set[str]) -> Counter[str]:
    """Count the unavailable workers of each service."""
    return Counter(
        worker.service
        for worker in workers
        if not worker.is_available or worker.name in in_progress
    )


@given(fleets(), limits, st.data())
def test_next_batch_respects_the_limits(
    workers: list[WorkerFacts], limits: RollingLimits, data: st.DataObject
) -> None:
    """Unavailable workers count, and each batch is as large as allowed."""
    names = [worker.name for worker in workers]
    names_drawn = (
        st.lists(st.sampled_from(names), unique=True) if names else st.just([])
    )
    waiting = data.draw(names_drawn)
    in_progress = set(data.draw(names_drawn)) - set(waiting)
    batch = next_batch(waiting, in_progress, workers, limits)
    assert list(batch) == [name for name in waiting if name in batch]
    before, after = away(workers, in_progress), away(workers, in_progress | {*batch})
    if limits.max_unavailable is not None:
        for service in after:
            allowed = max(before[service], limits.max_unavailable)
            assert after[service] <= allowed
    if limits.max_concurrently is not None and batch:
        assert len(in_progress) + len(batch) <= limits.max_concurrently
    for name in set(waiting) - set(batch):
        is_full = (
            limits.max_concurrently is not None
            and len(in_progress) + len(batch) >= limits.max_concurrently
        )
        is_guarded = (
            limits.max_unavailable is not None
            and name not in {w.name for w in workers if not w.is_available}
            and after[name[0]] >= limits.max_unavailable
        )
        assert is_full or is_guarded


@given(fleets(), limits)
def test_rolling_restart_of_all_completes(
    workers: list[WorkerFacts], limits: RollingLimits
) -> None:
    """Each worker is restarted exactly once if every restart succeeds."""
    waiting = [worker.name for worker in workers]
    restarted: list[str] = []
    now = list(workers)
    while waiting:
        batch = next_batch(waiting, set(), now, limits)
        if not batch:  # what is away for reasons of its own comes back in the end
            assert any(not worker.is_available for worker in now)
            now = [WorkerFacts(worker.name, worker.service, True) for worker in now]
            continue
        restarted += batch
        waiting = [name for name in waiting if name not in batch]
        now = [
            WorkerFacts(w.name, w.service, w.is_available or w.name in batch)
            for w in now
        ]
    assert sorted(restarted) == sorted(worker.name for worker in workers)


FOUR = [WorkerFacts(f"web.{index}", "web", True) for index in range(4)]
NAMES = [worker.name for worker in FOUR]


def test_next_batch_keeps_the_order_of_waiting() -> None:
    """As many at once as max_unavailable allows."""
    limits = RollingLimits(max_unavailable=2)
    assert next_batch(NAMES, set(), FOUR, limits) == ("web.0", "web.1")
    assert next_batch(NAMES[2:], {"web.0"}, FOUR, limits) == ("web.2",)
    assert next_batch(NAMES[2:], {"web.0", "web.1"}, FOUR, limits) == ()


def test_unavailable_worker_is_restarted_at_once() -> None:
    """And no available worker beside it."""
    workers = [WorkerFacts("web.0", "web", True), WorkerFacts("web.1", "web", False)]
    limits = RollingLimits(max_unavailable=1)
    assert next_batch(["web.0", "web.1"], set(), workers, limits) == ("web.1",)


def test_removed_worker_is_skipped() -> None:
    """Its service was scaled down in the meantime."""
    limits = RollingLimits(max_unavailable=1)
    assert next_batch(["web.9", "web.0"], set(), FOUR, limits) == ("web.0",)


def test_max_concurrently_holds_across_services() -> None:
    """Whatever max_unavailable allows in each of them."""
    workers = [*FOUR, WorkerFacts("jobs.0", "jobs", True)]
    limits = RollingLimits(max_concurrently=1)
    assert next_batch(["web.0", "jobs.0"], set(), workers, limits) == ("web.0",)
    assert next_batch(["jobs.0"], {"web.0"}, workers, limits) == ()


@pytest.mark.parametrize("field", ["max_unavailable", "max_concurrently"])
def test_limit_below_one_is_rejected(field: str) -> None:
    """The restart would wait for ever."""
    with pytest.raises(ValueError, match=field):
        RollingLimits(**{field: 0})
