"""Test the limit of concurrent starts, and that an overload ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pytest
from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st

from trio_supervisor.policy.admission import (
    EACH,
    IDLE,
    Admission,
    limit_for,
    makes_room,
)
from trio_supervisor.policy.overload import MOST, ResponseGap, Triage, time_left

steps = st.lists(
    st.tuples(st.sampled_from(["ask", "done"]), st.integers(0, 9), st.booleans()),
    max_size=80,
)


@given(steps, st.integers(1, 4))
@example([("ask", 0, True), ("ask", 1, True), ("done", 0, True), ("ask", 2, True)], 1)
def test_admission_agrees_with_a_list(
    steps: Sequence[tuple[Literal["ask", "done"], int, bool]], limit: int
) -> None:
    admission = Admission[int](limit)
    starting: set[int] = set()
    queue: list[int] = []
    for what, key, is_pressed in steps:
        if what == "done":
            admission.done(key)
            starting.discard(key)
            queue = [other for other in queue if other != key]
        else:
            may = not is_pressed or key in starting
            if not may:
                queue += [] if key in queue else [key]
                may = key in queue[: max(0, limit - len(starting))]
            assert admission.admit(key, 0.0, is_pressed=is_pressed) == may
            if may:
                starting.add(key)
                queue = [other for other in queue if other != key]
        assert set(admission.starting) == starting
        assert admission.is_idle == (not queue)
        assert admission.next(is_pressed=False) == queue
        assert admission.next(is_pressed=True) == queue[: max(0, limit - len(starting))]


@pytest.mark.parametrize(("cores", "limit"), [(1, 4), (2, 8), (64, 256)])
def test_limit_grows_with_the_number_of_processors(cores: int, limit: int) -> None:
    assert limit_for(cores) == limit


def test_only_a_sleeping_start_makes_room() -> None:
    assert makes_room(IDLE, 0.0)
    assert not makes_room(100.0, 96.0)
    assert EACH < MOST


# A machine on which everything that wants to run gets an equal share of it.

TICK = 0.25
BACKOFF = 60.0
"""Longest delay before another attempt [s]."""


@define(eq=False)
class Start:
    """A worker that is ready after it has computed for long enough."""

    name: int
    ran: float = 0.0
    queued: float = 0.0
    began: float | None = None
    next_try: float = 0.0
    failures: int = 0
    is_ready: bool = False


@define(eq=False)
class World:
    """Workers that start on a loaded machine, in virtual time."""

    cores: int
    work: float
    """Processor time that each start needs [s]."""
    timeout: float
    has_policy: bool = True
    now: float = 0.0
    starts: list[Start] = field(factory=list)
    triage: Triage = field(factory=Triage)
    admission: Admission[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.admission = Admission(limit_for(self.cores))

    def step(self, load: int) -> None:
        running = [start for start in self.starts if start.began is not None]
        wanted = load + len(running)
        is_pressed = wanted > self.cores
        self.admit(is_pressed)
        share = min(1.0, self.cores / max(1, wanted))
        for start in running:
            start.ran += share * TICK
            start.queued += (1 - share) * TICK
        self.now += TICK
        for start in running:
            self.judge(start, is_pressed)

    def admit(self, is_pressed: bool) -> None:
        for start in self.starts:
            if start.is_ready or start.began is not None or self.now < start.next_try:
                continue
            if not self.has_policy or self.admission.admit(
                start.name, self.now, is_pressed=is_pressed
            ):
                start.began, start.ran, start.queued = self.now, 0.0, 0.0

    def judge(self, start: Start, is_pressed: bool) -> None:
        assert start.began is not None
        elapsed = self.now - start.began
        if start.ran >= self.work:
            start.is_ready, start.began = True, None
        elif self.is_overdue(start, elapsed, is_pressed):
            start.failures += 1
            start.began = None
            start.next_try = self.now + min(BACKOFF, 0.5 * 2.0**start.failures)
        if start.began is None:
            self.admission.done(start.name)

    def is_overdue(self, start: Start, elapsed: float, is_pressed: bool) -> bool:
        if not self.has_policy:
            return elapsed >= self.timeout
        silence = ResponseGap(elapsed=elapsed, queued=start.queued)
        if time_left(silence, self.timeout) > 0:
            return False
        return not self.triage.wait(self.now, is_pressed=is_pressed, is_certain=True)

    @property
    def is_ready(self) -> bool:
        return all(start.is_ready for start in self.starts)


def run(world: World, count: int, load: int, duration: float, limit: float) -> float:
    """Return when all workers were ready after the load was gone; or *limit*."""
    world.starts = [Start(name) for name in range(count)]
    while world.now < duration:
        world.step(load)
    while not world.is_ready and world.now < duration + limit:
        world.step(0)
    return world.now - duration


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from([0.25, 1.0, 4.0]),
    st.sampled_from([1.5, 4.0]),
    st.integers(0, 200),
    st.sampled_from([0.0, 30.0, 300.0]),
)
@example(40, 1, 4.0, 1.5, 200, 300.0)
def test_workers_recover_soon_after_an_overload(
    count: int,
    cores: int,
    work: float,
    slack: float,
    load: int,
    duration: float,
) -> None:
    """Within twice the processor time needed, plus one backoff."""
    world = World(cores, work, slack * work)
    bound = 2 * count * work / cores + MOST * world.timeout + BACKOFF + 10
    assert run(world, count, load, duration, bound + 1) <= bound


def test_without_admission_an_overload_never_ends() -> None:
    """With plain timeouts the same machine never recovers."""
    plain = World(2, 1.0, 10.0, has_policy=False)
    assert run(plain, 500, 100, 60.0, 3600.0) == math.ceil(3600.0)
    ours = World(2, 1.0, 10.0)
    assert run(ours, 500, 100, 60.0, 3600.0) < 2 * 500 / 2
