"""Days of a child's life in milliseconds, against an oracle that knows no tasks."""

from __future__ import annotations

import math
import random
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import pytest
import trio
from attrs import define, evolve, field, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.events import (
    CrashLoopEnded,
    Event,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    ProcessStuck,
    RestartLimitReached,
    SignalNotPermitted,
    StartFailed,
    WorkerReady,
)
from trio_supervisor.errors import RestartLimitError
from trio_supervisor.policy.crash_text import describe_delay
from trio_supervisor.policy.lifecycle import TRANSITIONS, State
from trio_supervisor.policy.restart import Backoff, RestartPolicy, RestartRules
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import StopPlan
from trio_supervisor.testing import FakeProcess, in_virtual_time, sleep_through

TERM, KILL = int(signal.SIGTERM), int(signal.SIGKILL)
STARTUP: Final = 5.0
HEALTH: Final = 3.0
BEAT: Final = 1.0
STOP: Final = 2.0
HORIZON: Final = 100_000.0
NEVER: Final = math.inf

Wish: TypeAlias = Literal["restart", "stop", "start"]
Said: TypeAlias = tuple[Any, ...]
"""An event: its time, its kind, and what it says."""
STEPS: Final = {(before, after) for (before, _), after in TRANSITIONS.items()}


@frozen(kw_only=True)
class Life:
    """What one process does, independent of the controller. Times in seconds."""

    can_spawn: bool = True
    spawn_takes: float = 0.0
    in_thread: bool = False
    """Whether its start cannot be broken off: what was started is always returned."""
    ready_after: float = 0.25
    beats: int = 0
    """Heartbeats after READY, one a second."""
    exits_after: float = NEVER
    returncode: int = 0
    stopping_takes: float = 0.0
    is_stubborn: bool = False
    """Whether it ignores what asks it to stop."""
    grandchild: Literal["none", "obedient", "stubborn"] = "none"


class FixedJitter(random.Random):
    """Draws the same number each time."""

    def __init__(self, u: float) -> None:
        super().__init__()
        self._u = u

    def random(self) -> float:
        return self._u


@define(eq=False)
class Recorder:
    """Hears everything that a child tells, and checks what holds at any time."""

    said: list[Said] = field(factory=list)
    running: list[Process] = field(factory=list)
    states: list[State] = field(factory=lambda: [State.STOPPED])

    def on_change(self, child: Child) -> None:
        if child.state is not self.states[-1]:
            assert (self.states[-1], child.state) in STEPS
            self.states.append(child.state)

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        if is_running:
            assert not self.running, "two processes at once"
            self.running.append(process)
            assert child.process is process
        else:
            assert process.is_gone or process.forbidden()
            assert child.process is None
            self.running.remove(process)

    def on_event(self, event: Event) -> None:
        match event:
            case ProcessStarted(incarnation=incarnation):
                what: Said = ("started", incarnation)
            case WorkerReady(seconds=seconds):
                what = ("ready", seconds)
            case ProcessStopping(cause=cause):
                what = ("stopping", cause)
            case ProcessExited(
                returncode=returncode, is_planned=is_planned, next_step=next_step
            ):
                what = ("exited", returncode, is_planned, next_step)
            case StartFailed(next_step=next_step):
                what = ("not started", next_step)
            case RestartLimitReached():
                what = ("gave up",)
            case ProcessStuck(seconds=seconds):
                what = ("stuck", seconds)
            case SignalNotPermitted():
                what = ("not permitted",)
            case CrashLoopEnded():
                return
            case _:
                raise AssertionError(event)
        self.said.append((trio.current_time(), *what))


@define(eq=False)
class Stage:
    """Plays a story: makes the processes, and lets each live its life."""

    nursery: trio.Nursery
    lives: deque[Life]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """Cancelled at the end of the story."""
    processes: list[FakeProcess] = field(factory=list)
    child: Child = field(init=False)

    async def spawn(self, incarnation: int) -> FakeProcess:
        assert all(process.is_gone for process in self.processes)
        assert all(process.is_closed for process in self.processes)
        if not self.lives:
            self.scope.cancel()
            await trio.sleep_forever()
        life = self.lives.popleft()
        with trio.CancelScope(shield=life.in_thread):
            await trio.sleep(life.spawn_takes)
        if not life.can_spawn:
            raise FileNotFoundError("no such program")
        grandchild: dict[str, Sequence[int] | None] = {
            "none": None,
            "obedient": (),
            "stubborn": (TERM,),
        }
        process = FakeProcess(
            pid=1000 + incarnation,
            ignores=(TERM,) if life.is_stubborn else (),
            stopping_takes=life.stopping_takes,
            grandchild_ignores=grandchild[life.grandchild],
        )
        self.processes.append(process)
        self.nursery.start_soon(self._speak, process, life)
        self.nursery.start_soon(self._exit, process, life)
        return process

    async def _speak(self, process: FakeProcess, life: Life) -> None:
        await trio.sleep(life.ready_after)
        if process.is_running:
            self.child.notified(process.says("READY=1"))
        for _ in range(life.beats):
            await trio.sleep(BEAT)
            if process.is_running:
                self.child.notified(process.says("WATCHDOG=1"))

    async def _exit(self, process: FakeProcess, life: Life) -> None:
        await trio.sleep(life.exits_after)
        process.exit(life.returncode)

    async def ask(self, wishes: Sequence[tuple[float, Wish]]) -> None:
        for moment, wish in wishes:
            await trio.sleep_until(moment)
            getattr(self.child, f"request_{wish}")()


GIVING_UP: Final = "not restarting (restart limit reached)"


@define(eq=False)
class Oracle:
    """Says what has to happen, from one life to the next, with a pencil."""

    rules: RestartRules
    u: float
    wishes: deque[tuple[float, Wish]]
    said: list[Said] = field(factory=list)
    is_wanted: bool = True
    asked: str | None = None
    """The request that is still to be carried out."""
    endings: list[tuple[float, bool, bool]] = field(factory=list)
    """Of each: when, whether it ran well before, whether it counts as a restart."""
    state: State = State.STOPPED

    @property
    def never(self) -> str:
        """Why it is not restarted by its policy."""
        return f'restart="{self.rules.policy.value}"'

    def tell(self, lives: Sequence[Life]) -> None:
        now = 0.0
        for incarnation, life in enumerate(lives, 1):
            if not self.is_wanted:
                now = self.until_wanted()
                if now == NEVER:
                    return
            self.asked = None
            now = self.live(now, incarnation, life)
            if now == NEVER:
                return
        if not self.is_wanted:
            self.until_wanted()

    def until_wanted(self) -> float:
        while self.wishes:
            now, wish = self.wishes.popleft()
            self.hear(wish, is_ended=True)
            if self.is_wanted:
                return now
            self.state = State.STOPPED
        return NEVER

    def hear(self, wish: Wish, *, is_ended: bool = False) -> bool:
        """Take in a wish; say whether anything is to be done about it."""
        if wish == "start" and self.is_wanted and not is_ended:
            return False
        if wish != "stop":  # by hand: the backoff begins again, as after a good run
            self.endings.append((math.nan, True, False))
        self.is_wanted = wish != "stop"
        self.asked = "stop" if wish == "stop" else "restart"
        return True

    def hear_all(self, until: float) -> None:
        while self.wishes and self.wishes[0][0] < until:
            self.hear(self.wishes.popleft()[1])

    def next_wish(self, until: float, *, is_ended: bool = False) -> float:
        """When something is first asked for that changes things."""
        while self.wishes and self.wishes[0][0] < until:
            moment, wish = self.wishes.popleft()
            if self.hear(wish, is_ended=is_ended):
                return moment
        return NEVER

    def begin(self, now: float, life: Life) -> tuple[float, bool]:
        """When it is started, or is known not to be; and which of both."""
        born = now + life.spawn_takes
        if life.in_thread:
            self.hear_all(born)
            return born, life.can_spawn
        latest = min(born, now + STARTUP)
        while self.wishes and self.wishes[0][0] < latest:
            moment, wish = self.wishes.popleft()
            if self.hear(wish) and wish == "stop":
                return moment, False
        return latest, life.can_spawn and latest == born

    def live(self, now: float, incarnation: int, life: Life) -> float:
        born, is_started = self.begin(now, life)
        if not is_started:
            return self.decide(born, self.asked or "spawn", None, None)
        self.said.append((born, "started", incarnation))
        exit_at = born + life.exits_after
        ready_at, deadline, why = born + life.ready_after, born + STARTUP, "startup"
        if life.ready_after < STARTUP:
            deadline, why = ready_at + life.beats * BEAT + HEALTH, "unhealthy"
        else:
            ready_at = NEVER
        asked_at = born if self.asked else self.next_wish(min(exit_at, deadline))
        stop_at = min(asked_at, deadline)
        if ready_at < min(stop_at, exit_at):
            self.said.append((ready_at, "ready", ready_at - born))
        else:
            ready_at = NEVER
        if stop_at < exit_at:
            cause = self.asked or ("startup_timeout" if why == "startup" else why)
            self.said.append((stop_at, "stopping", cause))
            patience = STOP if life.is_stubborn else life.stopping_takes
            ended, returncode = stop_at + patience, -KILL if patience == STOP else -TERM
            if exit_at < ended:
                ended, returncode = exit_at, life.returncode
        else:
            cause, stop_at, ended, returncode = (
                "exit",
                exit_at,
                exit_at,
                life.returncode,
            )
        if life.grandchild == "stubborn":
            ended = max(ended, stop_at + STOP)
        self.hear_all(ended)
        if ended == NEVER:
            return NEVER
        ready_for = ended - ready_at if ready_at < NEVER else None
        if cause == "unhealthy":  # well up to its last heartbeat
            ready_for = life.beats * BEAT
        return self.decide(ended, self.asked or cause, returncode, ready_for)

    def decide(
        self, now: float, cause: str, returncode: int | None, ready_for: float | None
    ) -> float:
        is_planned = cause in ("restart", "stop")
        is_failure = not is_planned and (cause != "exit" or returncode != 0)
        is_again = cause == "restart" or (
            not is_planned
            and {"always": True, "never": False, "on-failure": is_failure}[
                self.rules.policy.value
            ]
        )
        backoff = self.rules.backoff
        was_good = (
            backoff is not None
            and ready_for is not None
            and ready_for >= backoff.stable_after
        )
        counts = is_again and not is_planned
        before, self.endings = (
            self.endings,
            [
                *self.endings,
                (now, was_good, counts),
            ],
        )
        if counts and self.rules.intensity is not None:
            recent = [
                t for t, _, c in self.endings if c and now - t <= self.rules.period
            ]
            if len(recent) > self.rules.intensity:
                self.say_end(now, returncode, is_planned, GIVING_UP)
                self.said.append((now, "gave up"))
                self.state = State.FAILED
                return NEVER
        if not is_again:
            why = "stop requested" if is_planned else self.never
            self.say_end(now, returncode, is_planned, f"not restarting ({why})")
            self.is_wanted = False
            self.state = State.FAILED if is_failure else State.STOPPED
            return now
        delay = 0.0
        if counts and backoff is not None and not was_good:
            in_a_row = 0
            for _, other_was_good, other_counts in reversed(before):
                in_a_row += other_counts
                if other_was_good:
                    break
            if in_a_row:
                longest = min(backoff.cap, backoff.base * 2 ** (in_a_row - 1))
                delay = self.u * longest
        step = "retrying" if returncode is None else "restarting"
        if delay:
            step += f" in {describe_delay(delay)} (backoff)"
        self.say_end(now, returncode, is_planned, step)
        sooner = self.next_wish(now + delay, is_ended=True)
        if not self.is_wanted:
            self.state = State.STOPPED
        return min(sooner, now + delay)

    def say_end(
        self, now: float, returncode: int | None, is_planned: bool, next_step: str
    ) -> None:
        if returncode is None:
            self.said.append((now, "not started", next_step))
        else:
            self.said.append((now, "exited", returncode, is_planned, next_step))


# Every kind of moment falls on a grid of its own, so that no two coincide: what a
# person asks for in the same instant in which a process exits is anybody's guess.
lives = st.builds(
    Life,
    can_spawn=st.sampled_from([True, True, True, False]),
    spawn_takes=st.sampled_from([0.0, 0.0, 0.5, 6.0]),
    in_thread=st.booleans(),
    ready_after=st.sampled_from([0.25, 1.0, 4.75, 5.25, NEVER]),
    beats=st.integers(0, 12),
    exits_after=st.just(NEVER) | st.integers(0, 60).map(lambda n: n / 4 + 1 / 16),
    returncode=st.sampled_from([0, 1, 77, -signal.SIGSEGV]),
    stopping_takes=st.sampled_from([0.0, 1.0]),
    is_stubborn=st.booleans(),
    grandchild=st.sampled_from(["none", "none", "obedient", "stubborn"]),
)


@st.composite
def wish_lists(draw: st.DrawFn) -> list[tuple[float, Wish]]:
    moments = draw(st.lists(st.integers(0, 200), max_size=6))
    kinds: st.SearchStrategy[Wish] = st.sampled_from(["restart", "stop", "start"])
    wishes = [(n / 4 + 2.0 ** -(6 + i), draw(kinds)) for i, n in enumerate(moments)]
    return sorted(wishes)


all_rules = st.builds(
    RestartRules,
    policy=st.sampled_from(RestartPolicy),
    backoff=st.none()
    | st.builds(
        Backoff,
        base=st.sampled_from([1, 2.0]),
        cap=st.sampled_from([2.0, 4.0, 64.0]),
        stable_after=st.sampled_from([0.0, 4, 10.0]),
    ),
    intensity=st.none() | st.integers(0, 4),
    period=st.sampled_from([1.0, 10, 60.0]),
)
PLAN: Final = ChildPlan(
    name="web.0",
    service="web",
    stop=StopPlan(timeout=STOP),
    startup_timeout=STARTUP,
    health_check_timeout=HEALTH,
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(lives, max_size=7),
    wish_lists(),
    all_rules,
    st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
@example(
    [Life(can_spawn=False, spawn_takes=0.5), Life(can_spawn=False, spawn_takes=0.5)],
    [(0.75, "stop")],
    RestartRules(backoff=Backoff(base=64, cap=64), intensity=None),
    0.5,
)
@in_virtual_time
async def test_a_child_does_exactly_what_the_oracle_says(
    lives: list[Life],
    wishes: list[tuple[float, Wish]],
    rules: RestartRules,
    u: float,
) -> None:
    oracle = Oracle(rules, u, deque(wishes))
    oracle.tell(lives)

    recorder, gave_up = Recorder(), False
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, deque(lives))
        child = Child(evolve(PLAN, rules=rules), stage.spawn, recorder, FixedJitter(u))
        stage.child = child
        nursery.start_soon(stage.ask, wishes)
        stage.scope.deadline = HORIZON
        with stage.scope:
            try:
                await child.run()
            except RestartLimitError:
                gave_up = True
        nursery.cancel_scope.cancel()

    before_the_end = [said for said in recorder.said if said[0] < HORIZON]
    assert before_the_end == oracle.said
    assert gave_up == any(said[1] == "gave up" for said in oracle.said)
    assert not recorder.running
    assert all(process.is_gone for process in stage.processes)
    if oracle.said and child.state in (State.STOPPED, State.FAILED):
        assert child.state is oracle.state
        assert child.process is None
    assert child.restarts == max(0, child.incarnation - 1)


# Single scenes, each with its exact times.


@define(eq=False)
class Scene:
    """A child that runs, and what it told."""

    child: Child
    recorder: Recorder
    stage: Stage

    @property
    def process(self) -> FakeProcess:
        return self.stage.processes[-1]

    @property
    def said(self) -> list[Said]:
        return self.recorder.said


def scene(
    lives: Sequence[Life], **changes: Any
) -> Callable[[Callable[[Scene], Awaitable[None]]], Callable[[], None]]:
    """Run a test beside a child that lives *lives*, and stop it after."""

    def decorate(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
        async def play() -> None:
            recorder = Recorder()
            async with trio.open_nursery() as nursery:
                stage = Stage(nursery, deque(lives))
                plan = evolve(PLAN, **({"rules": NO_DELAY} | changes))
                child = Child(plan, stage.spawn, recorder, FixedJitter(0.5))
                stage.child = child
                nursery.start_soon(child.run)
                await test(Scene(child, recorder, stage))
                nursery.cancel_scope.cancel()
            assert not recorder.running
            assert all(process.is_gone for process in stage.processes)

        run = in_virtual_time(play)

        def test_() -> None:
            run()

        test_.__name__, test_.__doc__ = str(getattr(test, "__name__", "")), test.__doc__
        return test_

    return decorate


NO_DELAY: Final = RestartRules(backoff=None, intensity=None)
HEALTHY: Final = Life(beats=10_000)


@scene([Life(ready_after=NEVER)])
async def test_one_that_is_never_ready_is_stopped_on_the_second(on: Scene) -> None:
    assert await on.child.wait_state(State.STOPPING) is State.STOPPING
    assert trio.current_time() == STARTUP
    assert on.said[1] == (STARTUP, "stopping", "startup_timeout")


@scene([Life(beats=4)])
async def test_one_whose_heartbeats_stop_is_stopped_on_the_second(on: Scene) -> None:
    """READY at 0.25 s, heartbeats until 4.25 s, three seconds of silence."""
    await on.child.wait_state(State.STOPPING)
    assert trio.current_time() == 0.25 + 4 * BEAT + HEALTH
    assert on.said[2][1:] == ("stopping", "unhealthy")
    assert on.recorder.states[2:5] == [State.READY, State.UNHEALTHY, State.STOPPING]


@scene([Life()], health_check_timeout=None, startup_timeout=None)
async def test_without_timeouts_silence_is_no_fault(on: Scene) -> None:
    await trio.sleep(86_400)
    assert on.child.state is State.READY


@scene([Life(beats=0), Life(beats=2)], beats_from_ready=False)
async def test_a_health_check_may_begin_with_the_first_heartbeat(on: Scene) -> None:
    """A plain function cannot send any: it is let alone until it does."""
    await trio.sleep(86_400)
    assert on.child.state is State.READY
    on.child.request_restart()
    await on.child.wait_state(State.STARTING, since=2)
    began = trio.current_time()
    await on.child.wait_state(State.STOPPING)
    assert trio.current_time() == began + 0.25 + 2 * BEAT + HEALTH


@scene([Life(beats=1), Life(beats=0)], beats_from_ready=False)
async def test_a_heartbeat_of_the_one_before_does_not_count(on: Scene) -> None:
    await trio.sleep(2)
    on.child.request_restart()
    await trio.sleep(86_400)
    assert on.child.incarnation == 2
    assert on.child.state is State.READY


@scene([Life(ready_after=NEVER)], notifies=False, health_check_timeout=None)
async def test_one_that_does_not_notify_is_ready_once_started(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    assert trio.current_time() == 0
    assert on.said == [(0, "started", 1), (0, "ready", 0)]


@scene([Life(ready_after=6.0, beats=10_000)])
async def test_a_startup_deadline_that_we_slept_through_does_not_kill(
    on: Scene,
) -> None:
    """A stopped controller, a suspended host: READY is there, and still unread."""
    await wait_all_tasks_blocked()
    sleep_through(STARTUP + 1.5)
    await trio.sleep(0.25)
    assert on.child.state is State.READY
    assert on.process.signals == []


@scene([Life(ready_after=NEVER)])
async def test_after_a_sleep_the_whole_startup_timeout_runs_again(on: Scene) -> None:
    await wait_all_tasks_blocked()
    sleep_through(STARTUP + 1.5)
    await on.child.wait_state(State.STOPPING)
    assert trio.current_time() == STARTUP + 1.5 + STARTUP


@scene([HEALTHY])
async def test_a_heartbeat_that_we_slept_through_does_not_kill(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    await trio.sleep(10)
    for _ in range(5):
        sleep_through(HEALTH + 100)
        await trio.sleep(2)
    assert on.child.state is State.READY
    assert on.process.signals == []


@scene([Life()], beats_from_ready=False, startup_timeout=2.0)
async def test_a_sleep_is_no_first_heartbeat(on: Scene) -> None:
    """A sync worker that never sent one is not checked, sleep or not."""
    await wait_all_tasks_blocked()
    sleep_through(3.5)
    await trio.sleep(86_400)
    assert on.child.state is State.READY


@scene([Life(ready_after=NEVER)])
async def test_a_deadline_a_little_late_is_a_deadline(on: Scene) -> None:
    """A busy second is no sleep."""
    await wait_all_tasks_blocked()
    sleep_through(STARTUP + 0.75)
    await on.child.wait_state(State.STOPPING)
    assert trio.current_time() == STARTUP + 0.75


@scene([Life(beats=10_000, is_stubborn=True), HEALTHY])
async def test_a_restart_asks_waits_and_kills(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.request_restart("because")
    await on.child.wait_state(State.READY, since=2)
    assert on.stage.processes[0].signals == [TERM, signal.SIGCONT, KILL]
    assert trio.current_time() == 0.25 + STOP + 0.25
    assert on.said[-3] == (2.25, "exited", -KILL, True, "restarting")


@scene(100 * [HEALTHY], rules=RestartRules(intensity=0))
async def test_planned_restarts_never_count(on: Scene) -> None:
    """No unplanned restart is allowed here."""
    for incarnation in range(1, 100):
        await on.child.wait_state(State.READY, since=incarnation)
        on.child.request_restart()
    assert on.child.restarts == 98
    assert trio.current_time() == 99 * 0.25


@scene([HEALTHY], rules=RestartRules(policy=RestartPolicy.NEVER))
async def test_a_stopped_one_stays_so_until_it_is_started(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.request_stop()
    on.child.request_stop()
    await on.child.wait_state(State.STOPPED)
    await trio.sleep(3600)
    on.child.request_stop()
    await wait_all_tasks_blocked()
    assert on.child.state is State.STOPPED
    assert on.child.incarnation == 1
    on.child.request_start()
    await wait_all_tasks_blocked()
    await on.child.wait_state(State.STARTING, since=2)


@scene(
    [Life(exits_after=1.0625, returncode=3), HEALTHY],
    rules=RestartRules(policy=RestartPolicy.NEVER),
)
async def test_a_failed_one_is_no_failure_once_it_is_stopped(on: Scene) -> None:
    await on.child.wait_state(State.FAILED)
    assert on.child.last_exit == "exit code 3"
    on.child.request_stop()
    await on.child.wait_state(State.STOPPED)
    on.child.request_start()
    await on.child.wait_state(State.READY)


@scene([Life(stopping_takes=1.0, beats=10_000), HEALTHY])
async def test_a_start_during_a_stop_starts_it_again(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.request_stop()
    await on.child.wait_state(State.STOPPING)
    on.child.request_start()
    await on.child.wait_state(State.READY, since=2)


@scene([HEALTHY, HEALTHY])
async def test_a_start_of_one_that_runs_does_nothing(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.request_start()
    await trio.sleep(10)
    assert on.child.incarnation == 1


@scene([Life(can_spawn=False), HEALTHY])
async def test_one_that_cannot_be_started_says_why(on: Scene) -> None:
    await on.child.wait_state(State.READY, since=2)
    assert on.said[0] == (0, "not started", "retrying")
    assert on.child.last_exit == "no such program"


@scene(
    [Life(can_spawn=False), Life(can_spawn=False, spawn_takes=0.5), HEALTHY],
    rules=RestartRules(backoff=Backoff(base=3600, cap=3600)),
)
async def test_a_stop_during_a_start_breaks_it_off(on: Scene) -> None:
    await trio.sleep(0.25)
    on.child.request_stop()
    await on.child.wait_state(State.STOPPED)
    assert trio.current_time() == 0.25


@scene(
    [Life(can_spawn=False), Life(can_spawn=False, spawn_takes=0.5), HEALTHY],
    rules=RestartRules(backoff=Backoff(base=3600, cap=3600)),
)
async def test_a_restart_during_a_start_that_fails_waits_for_no_backoff(
    on: Scene,
) -> None:
    await trio.sleep(0.25)
    on.child.request_restart()
    await on.child.wait_state(State.READY)
    assert trio.current_time() == 0.5 + 0.25


@scene([Life(spawn_takes=60.0), HEALTHY])
async def test_a_start_that_takes_too_long_is_broken_off(on: Scene) -> None:
    """As when a fork server imports an application that never returns."""
    await on.child.wait_state(State.STARTING, since=2)
    assert trio.current_time() == STARTUP
    assert on.said[0] == (STARTUP, "not started", "retrying")


@scene([Life(spawn_takes=0.5, in_thread=True)])
async def test_one_that_was_started_in_spite_of_a_stop_is_stopped(on: Scene) -> None:
    await trio.sleep(0.25)
    on.child.request_stop()
    await on.child.wait_state(State.STOPPED)
    assert [said[:2] for said in on.said] == [
        (0.5, "started"),
        (0.5, "stopping"),
        (0.5, "exited"),
    ]


@scene(
    [Life(exits_after=1 / 16), Life(exits_after=1 / 16), HEALTHY],
    rules=RestartRules(backoff=Backoff(base=64, cap=64)),
)
async def test_a_stop_during_a_backoff_is_done_at_once(on: Scene) -> None:
    await on.child.wait_state(State.BACKOFF, since=2)
    await trio.sleep(1)
    on.child.request_stop()
    await on.child.wait_state(State.STOPPED)
    assert trio.current_time() == 2 / 16 + 1


@scene([HEALTHY])
async def test_what_a_process_says_of_itself_can_be_read(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.notified(on.process.says("STATUS=3 jobs"))
    assert on.child.status == "3 jobs"
    with trio.move_on_after(1) as scope:
        on.child.notified(on.process.says("STATUS=3 jobs"))
        await on.child.wait_news()
    assert scope.cancelled_caught, "the same again is no news"
    on.child.request_restart()
    await wait_all_tasks_blocked()
    assert on.child.status == ""


@scene([HEALTHY])
async def test_ready_said_twice_counts_once(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.notified(on.process.says("READY=1"))
    assert [said[1] for said in on.said] == ["started", "ready"]


@scene([HEALTHY])
async def test_a_process_that_the_kernel_does_not_let_go_is_told_of(on: Scene) -> None:
    """Again and again; and it is never given up, nor another one started."""
    await on.child.wait_state(State.READY)
    process = on.process
    process.ignores = (TERM, KILL)
    on.child.request_restart()
    await trio.sleep(STOP + 35)
    assert [said for said in on.said if said[1] == "stuck"] == [
        (0.25 + STOP + seconds, "stuck", STOP + seconds) for seconds in (10, 20, 30)
    ]
    assert len(on.stage.processes) == 1
    process.exit(-KILL)
    await wait_all_tasks_blocked()
    assert on.child.incarnation == 2


@scene([HEALTHY, HEALTHY])
async def test_one_that_may_not_be_stopped_gets_no_second_process(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    process = on.process
    process.user = "root"  # it has become another user
    on.child.request_restart()
    await on.child.wait_state(State.FAILED)
    await trio.sleep(1000)
    assert [said[1] for said in on.said] == [
        *("started", "ready", "stopping", "not permitted"),
    ]
    assert on.stage.processes == [process]
    process.user = None
    process.exit(-KILL)
    await process.wait()


@scene([Life(beats=10_000, is_stubborn=True)])
async def test_lost_patience_kills_at_once(on: Scene) -> None:
    await on.child.wait_state(State.READY)
    on.child.request_stop()
    await trio.sleep(1)
    on.child.stop_deadline.expire()
    await on.child.wait_state(State.STOPPED)
    assert trio.current_time() == 1.25


@pytest.mark.parametrize("moment", [0.0, 0.125, 0.25, 1.0, 10.0])
@pytest.mark.parametrize("grandchild", ["none", "stubborn"])
@in_virtual_time
async def test_a_cancellation_at_any_moment_leaves_nothing(
    moment: float, grandchild: Literal["none", "stubborn"]
) -> None:
    """While it is starting, while ready, while stopping."""
    recorder = Recorder()
    life = Life(is_stubborn=True, grandchild=grandchild, spawn_takes=0.125)
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, deque([life, life]))
        stage.child = Child(PLAN, stage.spawn, recorder, random.Random())
        with trio.move_on_after(moment):
            await stage.child.run()
        assert not recorder.running
        assert all(process.is_gone for process in stage.processes)
        assert trio.current_time() <= moment + STOP
        nursery.cancel_scope.cancel()
