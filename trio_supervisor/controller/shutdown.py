"""The end of an application: why it began, the ordered stop, and how it failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.application import Application
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import (
    Event,
    ShutdownFinished,
    ShutdownStarted,
    ShutdownTimedOut,
)
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.controller.fleet.ordered_stop import (
    check_ended,
    stop_all_operation,
)
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    SignalNotPermittedError,
    SignificantServiceError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.shutdown import is_over, kill_after, stop_warning
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.tasks import ProtectedNursery

logger = logging.getLogger("trio_supervisor.controller")

# Time for the supervisor to send the answers of finished calls before it ends [s].
_LAST_WORD: Final = 0.05


@define(eq=False)
class OrderedShutdown:
    """The shutdown of one controller."""

    _members: Members
    _stop_deadline: StopDeadline
    _on_event: Callable[[Event], None]
    requested: trio.Event = field(factory=trio.Event, init=False)
    _workers_stopped: trio.Event = field(factory=trio.Event, init=False)
    _is_awaited: bool = field(default=False, init=False)
    """Whether a client waits for the shutdown and must be answered first."""
    _reason: str = field(default="", init=False)
    _failure: SupervisorError | None = field(default=None, init=False)

    @property
    def is_requested(self) -> bool:
        """Whether a shutdown is in progress."""
        return self.requested.is_set()

    def request(self, reason: str) -> None:
        """Begin an ordered shutdown, unless one is in progress."""
        if not self.is_requested:
            self._reason = reason
            self.requested.set()
            self._members.fleet.close()
            self._members.readiness.tell()

    def fail(self, failure: SupervisorError) -> None:
        """Begin a shutdown because of *failure*, which the caller gets at the end."""
        self._failure = self._failure or failure
        self.request(str(failure))

    def hurry(self) -> None:
        """Kill the remaining processes immediately."""
        self._stop_deadline.expire()

    def check_open(self) -> None:
        """Check that no shutdown is in progress.

        Raises:
            UnavailableError: a shutdown is in progress.
        """
        if self.is_requested:
            raise UnavailableError("the controller is shutting down")

    def check_over(self, application: Application) -> None:
        """Shut down *application* if a significant service has exited for good."""
        units = self._members.generation.units
        significant = {
            name: bool(unit.children)
            and all(child.has_exited_for_good for child in unit.children)
            for name, unit in units.items()
            if unit.service.significant
        }
        if not is_over(application.auto_shutdown, significant):
            return
        ended = [name for name, has_ended in significant.items() if has_ended]
        children = [child for name in ended for child in units[name].children]
        failed = [child for child in children if child.state is State.FAILED]
        if failed and self._failure is None:
            how = failed[0].last_exit
            problem = f"{failed[0].name} of a significant service failed ({how})"
            self._failure = SignificantServiceError(problem)
        which = "service" if len(ended) == 1 else "services"
        self.request(f"significant {which} {', '.join(ended)} finished")

    def warn_of_stop(self, application: Application) -> None:
        """Log if the `stop_timeout` of *application* is less than its services need."""
        timeouts = {s.name: s.stop_timeout for s in application.services}
        needs, limit = application.needs(), application.stop_timeout
        if warning := stop_warning(limit, needs, timeouts):
            logger.warning("%s", warning)

    async def run(
        self, nursery: ProtectedNursery, supervisor: Child, application: Application
    ) -> float:
        """Stop all workers, dependents first, then the supervisor.

        Returns when it began, by the clock of trio [s].
        """
        began = trio.current_time()
        self._on_event(ShutdownStarted(name="controller", reason=self._reason))
        if (timeout := application.stop_timeout) is not None:
            nursery.start_soon(self._limit, began, timeout)
        await self._stop_workers()
        self._workers_stopped.set()
        if self._is_awaited:
            await self.wait_passed_on()
        supervisor.request_stop("shutdown")
        await supervisor.wait_state(State.STOPPED)
        return began

    def finish(self, began: float) -> None:
        """Report the end."""
        seconds = trio.current_time() - began
        self._on_event(ShutdownFinished(name="controller", seconds=seconds))

    def raise_failure(self) -> None:
        """Raise the failure that began the shutdown, if there is one."""
        if self._failure is not None:
            raise self._failure

    async def wait_workers_stopped(self) -> None:
        """Wait until all workers have stopped, after `request`.

        Raises:
            SignalNotPermittedError: a worker could not be stopped.
        """
        self._is_awaited = True
        await self._workers_stopped.wait()
        if isinstance(self._failure, SignalNotPermittedError):
            raise self._failure

    async def wait_passed_on(self) -> None:
        """Wait briefly until the supervisor has forwarded the answers sent so far."""
        await trio.sleep(_LAST_WORD)
        with trio.move_on_after(_LAST_WORD):
            # If the supervisor has exited on its own, there is nothing to wait for.
            with suppress(UnavailableError, CallFailedError, ConnectionLostError):
                await self._members.link.ask("ping", {})

    async def _stop_workers(self) -> None:
        children = list(self._members.everyone())
        generations = self._members.generations()
        operation = stop_all_operation(generations, children, "shutdown")
        await self._members.fleet.carry_out(operation)
        try:
            check_ended(children)
        except SignalNotPermittedError as exc:
            self._failure = self._failure or exc

    async def _limit(self, began: float, stop_timeout: float) -> None:
        """Kill the remaining processes in time to keep the overall `stop_timeout`."""
        self._stop_deadline.limit(began + kill_after(stop_timeout))
        await trio.sleep_until(began + kill_after(stop_timeout))
        everyone = self._members.everyone()
        left = tuple(child.name for child in everyone if child.has_process)
        event = ShutdownTimedOut(name="controller", timeout=stop_timeout, left=left)
        self._on_event(event)
