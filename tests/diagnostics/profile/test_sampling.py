"""The sampling profiler: what runs, what waits, what is suspended, and how much."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.diagnostics import PATIENCE, from_another_thread, look_until, threads
from trio_supervisor.diagnostics.profile.formats import (
    FORMATS,
    collapsed,
    profile_report,
    speedscope,
)
from trio_supervisor.diagnostics.profile.sampling import (
    RUNNING,
    TASKS,
    WAITING,
    SampledProfile,
    SampledStack,
    Sampler,
    StackLine,
    profile_for,
)
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, current_main_loop
from trio_supervisor.errors import BadRequestError


def compute(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(100))


def look(sampler: Sampler, samples: int) -> SampledProfile:
    for _ in range(samples):
        sampler.sample()
        threading.Event().wait(0.001)
    return sampler.profile()


def sampled(
    samples: int, max_stacks: int = 5000, **targets: Callable[[], object]
) -> SampledProfile:
    """Return what so many looks see while *targets* run."""
    sampler = Sampler(MainLoop(), max_stacks=max_stacks)
    with threads(**targets):
        profile = look(sampler, samples)
        STOP.set()
    STOP.clear()
    return profile


def sampled_mostly(
    kinds: Mapping[str, str], **targets: Callable[[], object]
) -> SampledProfile:
    """Return what is seen once nine of ten looks see each thread as of its kind.

    On a busy machine the first looks may see it when it has not even begun.
    """
    sampler = Sampler(MainLoop())
    with threads(**targets):
        profile = look_until(
            lambda: look(sampler, 50), lambda profile: are_mostly(profile, kinds)
        )
        STOP.set()
    STOP.clear()
    return profile


def are_mostly(profile: SampledProfile, kinds: Mapping[str, str]) -> bool:
    return all(share(profile, thread, kind) > 0.9 for thread, kind in kinds.items())


def share(profile: SampledProfile, thread: str, kind: str) -> float:
    own = [stack for stack in profile.stacks if stack.thread == thread]
    seen = sum(stack.count for stack in own)
    return sum(stack.count for stack in own if stack.kind == kind) / max(seen, 1)


STOP = threading.Event()


def kinds_of(profile: SampledProfile, thread: str) -> set[str]:
    return {stack.kind for stack in profile.stacks if stack.thread == thread}


def test_computing_thread_is_running_and_blocked_is_waiting() -> None:
    profile = sampled_mostly(
        {"busy": RUNNING, "idle": WAITING, "asleep": WAITING},
        busy=lambda: compute(STOP),
        idle=STOP.wait,
        asleep=lambda: nap(STOP),
    )
    busy = [stack for stack in profile.stacks if stack.thread == "busy"]
    assert {stack.lines[-1].function for stack in busy} & {"compute", "Event.is_set"}
    hottest = profile.hottest()
    assert hottest[0].file == __file__ or hottest[0].function == "Event.is_set"
    assert sum(line.share for line in hottest) <= 1.0 + 1e-9


def nap(stop: threading.Event) -> None:
    while not stop.is_set():
        time.sleep(0.05)


def test_profile_totals_match_samples() -> None:
    """Each look sees each thread once, and all of its time goes somewhere."""
    profile = sampled(30, busy=lambda: compute(STOP), idle=STOP.wait)
    assert profile.samples == 30
    for thread in ("busy", "idle"):
        own = [stack for stack in profile.stacks if stack.thread == thread]
        assert sum(stack.count for stack in own) == 30
        seconds = sum(stack.time for stack in own) / 1e9
        assert seconds == pytest.approx(profile.duration)
    assert 0 < profile.overhead < 1


def test_profile_omits_sampling_thread() -> None:
    profile = sampled(3, idle=STOP.wait)
    assert kinds_of(profile, "MainThread") == set()


def test_profile_limits_stacks_and_counts_the_rest() -> None:
    """Nothing of the time is lost."""
    profile = sampled(
        50, 1, busy=lambda: compute(STOP), idle=STOP.wait, asleep=lambda: nap(STOP)
    )
    assert len(profile.stacks) <= 1 + 2
    assert profile.overflow > 0
    counted = sum(stack.count for stack in profile.stacks)
    assert counted >= 150


async def test_profile_has_suspended_tasks_as_wall_time() -> None:
    async def pause() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pause)
        await trio.testing.wait_all_tasks_blocked()
        main = current_main_loop()
        profile = from_another_thread(lambda: profile_for(0.05, 0.005, main))
        nursery.cancel_scope.cancel()
    (paused,) = [
        stack
        for stack in profile.stacks
        if stack.kind == TASKS and stack.lines[0].function.endswith("pause")
    ]
    assert paused.count == 3 * profile.task_samples
    assert paused.time <= 3 * round(profile.duration * 1e9)
    assert paused.lines[1].function == "sleep_forever"
    waiting = [s for s in profile.stacks if s.thread == "MainThread"]
    assert {stack.kind for stack in waiting} == {WAITING}


async def test_many_tasks_are_sampled_less_often() -> None:
    """So that looking stays cheap."""
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        main = current_main_loop()
        profile = from_another_thread(
            lambda: look_until(
                lambda: profile_for(0.3, 0.001, main), lambda found: found.samples > 20
            )
        )
        nursery.cancel_scope.cancel()
    assert 0 < profile.task_samples < profile.samples / 2
    report = profile_report(profile)
    assert report.task_interval > report.interval


def test_aliased_blocking_call_is_waiting() -> None:
    """As ``self._read`` does, where that is a file's."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as pipe:
        fetch = pipe.read

        def wait() -> None:
            fetch(1)

        def wait_in_c() -> None:
            # A function in C whose name says nothing.
            map(fetch, [1]).__next__()

        for target in (wait, wait_in_c):
            sampler = Sampler(MainLoop())
            with threads(reader=target):
                look_until(
                    partial(look, sampler, 30),
                    lambda profile: are_mostly(profile, {"reader": WAITING}),
                )
                os.write(write, b"x")
    os.close(write)


def test_string_join_is_running() -> None:
    """Other than that of threads."""
    words = ["word"] * 10_000

    def join() -> None:
        while not STOP.is_set():
            " ".join(words)

    assert sampled_mostly({"joiner": RUNNING}, joiner=join).samples


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_runnable_thread_without_cpu_is_not_waiting() -> None:
    """It would run if it were let, as on a busy machine."""
    begun = threading.Event()

    def compute_in_c() -> None:
        begun.set()
        # Without the interpreter's lock, for about a second of the processor.
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 3_000_000)

    sampler = Sampler(MainLoop())
    hog = [sys.executable, "-c", "while True: pass"]
    processor = min(os.sched_getaffinity(0))
    with threads(starved=compute_in_c):
        assert begun.wait(PATIENCE)
        (starved,) = (t.native_id for t in threading.enumerate() if t.name == "starved")
        assert starved is not None
        os.sched_setaffinity(starved, {processor})
        os.sched_setscheduler(starved, os.SCHED_IDLE, os.sched_param(0))
        with subprocess.Popen(hog) as process:
            os.sched_setaffinity(process.pid, {processor})
            for _ in range(30):
                sampler.sample()
                threading.Event().wait(0.002)
            process.kill()
        # Or it would get no processor where others use them all.
        os.sched_setaffinity(starved, os.sched_getaffinity(0))
        with suppress(PermissionError):
            os.sched_setscheduler(starved, os.SCHED_OTHER, os.sched_param(0))
    seen = [s for s in sampler.profile().stacks if s.thread == "starved"]
    assert {stack.kind for stack in seen} == {RUNNING}


def test_thread_join_is_waiting() -> None:
    other = threading.Thread(target=STOP.wait)
    other.start()
    assert sampled_mostly({"joiner": WAITING}, joiner=other.join).samples
    other.join()


names = st.text(min_size=1, max_size=20)
lines = st.builds(StackLine, file=names, line=st.integers(0, 9999), function=names)
stacks = st.builds(
    SampledStack,
    kind=st.sampled_from([RUNNING, WAITING, TASKS]),
    thread=names,
    lines=st.lists(lines, max_size=6).map(tuple),
    count=st.integers(1, 1000),
    time=st.integers(1, 10**12),
)
profiles = st.builds(
    SampledProfile,
    stacks=st.lists(stacks, max_size=10).map(tuple),
    samples=st.integers(0, 1000),
    interval=st.just(0.01),
    duration=st.floats(0.1, 100),
    overhead=st.floats(0, 1),
    task_samples=st.integers(0, 100),
)


@given(profiles)
def test_collapsed_stacks_keep_the_time(profile: SampledProfile) -> None:
    """One line each, whatever stands in the names."""
    found = collapsed(profile).splitlines()
    assert len(found) == len(profile.stacks)
    for line, stack in zip(found, profile.stacks, strict=True):
        path, _, spent = line.rpartition(" ")
        assert int(spent) == stack.time // 1000
        assert path.split(";")[0] == stack.kind
        assert path.count(";") == 1 + max(1, len(stack.lines))


@given(profiles)
def test_speedscope_follows_its_schema(profile: SampledProfile) -> None:
    """https://www.speedscope.app/file-format-schema.json, by hand."""
    tree = json.loads(speedscope(profile))
    assert tree["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = tree["shared"]["frames"]
    assert all(set(frame) <= {"name", "file", "line", "col"} for frame in frames)
    assert all(isinstance(frame["name"], str) for frame in frames)
    assert tree["profiles"]
    total = 0
    for found in tree["profiles"]:
        assert found["type"] == "sampled"
        assert found["unit"] == "nanoseconds"
        assert len(found["samples"]) == len(found["weights"])
        assert all(0 <= n < len(frames) for stack in found["samples"] for n in stack)
        assert found["endValue"] - found["startValue"] == sum(found["weights"])
        total += sum(found["weights"])
    assert total == sum(stack.time for stack in profile.stacks)


@pytest.mark.parametrize("format_", FORMATS)
def test_profile_report_names_its_format(format_: str) -> None:
    profile = sampled(10, busy=lambda: compute(STOP))
    report = profile_report(profile, format_)
    assert report.format == format_
    assert report.data
    assert report.running + report.waiting > 0
    assert report.overflow == 0


def test_profile_report_unknown_format_is_refused() -> None:
    with pytest.raises(BadRequestError, match="speedscope, collapsed"):
        profile_report(sampled(1), "png")
