"""The garbage collector's profile: its counts add up, and there is one at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.diagnostics.profile.garbage import BUCKETS, GarbageProfiler
from trio_supervisor.errors import BusyError, UnavailableError
from trio_supervisor.wire.reports import GarbageReport


@pytest.fixture(autouse=True)
def _quiet_collector() -> Iterator[None]:
    """Collections when a test says so, and no others; none of them of all the rest."""
    gc.collect()
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


def profile_of(*generations: int) -> GarbageReport:
    profile = GarbageProfiler()
    profile.start()
    for generation in generations:
        gc.collect(generation)
    return profile.stop()


@given(st.lists(st.integers(0, 2), max_size=20))
def test_each_collection_is_in_its_generation_and_one_bucket(
    generations: list[int],
) -> None:
    report = profile_of(*generations)
    counts = [g.collections for g in report.generations]
    assert counts == [generations.count(number) for number in range(3)]
    assert report.collections == len(generations)
    assert sum(bucket.count for bucket in report.histogram) == len(generations)
    assert report.pause == sum(g.pause for g in report.generations)
    assert report.longest == max(g.longest for g in report.generations)
    assert report.longest <= report.pause <= report.duration
    assert [bucket.up_to for bucket in report.histogram] == [*BUCKETS, None]


def test_collected_objects_are_counted() -> None:
    profile = GarbageProfiler()
    profile.start()
    for _ in range(100):
        ring: list[object] = []
        ring.append(ring)
    del ring
    gc.collect()
    report = profile.stop()
    assert report.collected >= 100
    assert report.uncollectable == 0
    assert report.data.startswith("1 collection in ")


def test_second_garbage_profile_is_busy() -> None:
    first, second = GarbageProfiler(), GarbageProfiler()
    first.start()
    with pytest.raises(BusyError, match="another"):
        second.start()
    first.stop()
    second.start()
    second.stop()


def test_stop_twice_returns_same_report() -> None:
    profile = GarbageProfiler()
    profile.start()
    report = profile.stop()
    gc.collect()
    assert profile.stop() is report
    assert not any(isinstance(c, type(profile.stop)) for c in gc.callbacks)


def test_stop_without_start_is_refused() -> None:
    with pytest.raises(UnavailableError):
        GarbageProfiler().stop()


def test_cleared_gc_callbacks_are_tolerated() -> None:
    profile = GarbageProfiler()
    profile.start()
    before = gc.callbacks[:]
    gc.callbacks.clear()
    assert profile.stop().collections == 0
    gc.callbacks[:] = [c for c in before if c not in gc.callbacks][:-1]


def test_collection_begun_before_start_is_ignored() -> None:
    profile = GarbageProfiler()
    profile.start()
    (callback,) = gc.callbacks[-1:]
    callback("stop", {"generation": 0, "collected": 0, "uncollectable": 0})
    assert profile.stop().collections == 0


def collect() -> None:
    gc.collect()


def test_long_collection_has_its_stack() -> None:
    profile = GarbageProfiler()
    kept = [[number] for number in range(100_000)]
    profile.start()
    try:
        collect()
    finally:
        report = profile.stop()
    stack, *_ = profile.stacks()
    assert len(kept) == 100_000
    assert (stack.lines[0].file, stack.lines[0].function) == (__file__, "collect")
    assert 0 < stack.pause <= report.pause
