"""A state machine for hypothesis that hurts an application, to be extended."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_supervisor.application import Application
from trio_supervisor.testing.fault_plan import Fault, FaultPlan
from trio_supervisor.testing.simulation import Simulation, simulated
from trio_supervisor.testing.strategies import one_fault

T = TypeVar("T")
_Job: TypeAlias = tuple[Callable[[Simulation], Awaitable[Any]], "SimpleQueue[Any]"]
_AT_REST: Final = frozenset({"ready", "stopped"})


class SupervisorMachine(RuleBasedStateMachine):
    """Runs an application in virtual time while anything may go wrong.

    A subclass gives *application*, adds rules for what its clients do, and invariants
    for what must hold at any time. After the last step, faults end: everything has
    *settle_within* seconds to be ready again, or the test fails. Example::

        class QueueMachine(SupervisorMachine):
            application = application

            @rule()
            def put(self) -> None:
                self.do(lambda simulation: queue.put("job"))

            @invariant()
            def no_job_is_lost(self) -> None:
                assert queue.accepted == queue.waiting | queue.leased | queue.done

        TestQueue = QueueMachine.TestCase

    `make_application` may be overridden instead, to make a new one for each example.
    """

    application: ClassVar[Application]
    settle_within: ClassVar[float] = 600.0
    """[s]"""

    def __init__(self) -> None:
        super().__init__()
        self._jobs = SimpleQueue[_Job | None]()
        self._began = SimpleQueue[BaseException | None]()
        self._error: BaseException | None = None
        self._nursery: trio.Nursery | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if (error := self._began.get()) is not None:
            raise error

    def make_application(self) -> Application:
        """Return the application of one example."""
        return self.application

    def do(self, function: Callable[[Simulation], Awaitable[T]]) -> T:
        """Call an async *function* inside of the simulation, and return its result.

        Virtual time passes as far as *function* waits. Its exceptions are raised.
        """
        answer = SimpleQueue[Any]()
        self._jobs.put((function, answer))
        result, error = answer.get()
        if error is not None:
            raise error
        found: T = result
        return found

    @rule(seconds=st.sampled_from([0.25, 1.0, 10.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

        async def wait(_: Simulation) -> None:
            await trio.sleep(seconds)

        self.do(wait)

    @rule(fault=one_fault())
    def strike(self, fault: Fault) -> None:
        """Have something go wrong. What takes time goes on in the background."""

        async def begin(simulation: Simulation) -> None:
            assert self._nursery is not None, "do() runs inside of the simulation"
            self._nursery.start_soon(FaultPlan(((0.0, fault),)).run, simulation)
            await wait_all_tasks_blocked()

        self.do(begin)

    @invariant()
    @precondition(lambda self: self._thread.is_alive())
    def one_process_each(self) -> None:
        """No worker of a generation has two processes at a time."""

        async def count(simulation: Simulation) -> Counter[tuple[str, int]]:
            await trio.lowlevel.checkpoint()
            return Counter((p.name, p.boot.generation) for p in simulation.processes)

        twice = [name for (name, _), n in self.do(count).items() if n > 1]
        assert not twice, f"two processes at once: {', '.join(twice)}"

    def teardown(self) -> None:
        """Wait until all is ready again, and stop."""
        try:
            self.do(self._settle)
        finally:
            self._jobs.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    async def _settle(self, simulation: Simulation) -> None:
        await trio.sleep(self.settle_within)
        restless = ", ".join(_restless(simulation))
        assert simulation.failure is not None or not restless, (
            f"not ready {self.settle_within:g} s after the last fault: {restless}"
        )

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=MockClock(autojump_threshold=0))
        except BaseException as exc:
            self._error = exc
            self._began.put(exc)
            self._refuse(exc)

    def _refuse(self, error: BaseException) -> None:
        """Answer for a simulation that has failed."""
        while (job := self._jobs.get()) is not None:
            job[1].put((None, error))

    async def _main(self) -> None:
        async with (
            simulated(self.make_application()) as simulation,
            trio.open_nursery() as self._nursery,
        ):
            self._began.put(None)
            # It blocks this thread, and with it virtual time.
            while (job := self._jobs.get()) is not None:
                function, answer = job
                try:
                    result = await function(simulation)
                except Exception as exc:
                    answer.put((None, exc))
                else:
                    answer.put((result, None))
            self._nursery.cancel_scope.cancel()


def _restless(simulation: Simulation) -> list[str]:
    states = simulation.states.items()
    return [f"{name} ({state})" for name, state in states if state not in _AT_REST]
