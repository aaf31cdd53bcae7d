"""Derive what others want to know of a worker from its state and history. Pure.

A worker's condition is four facts: its state, whether it should run, whether it has
been started, and how its last process ended. All else follows from them:

========================  ==========================================================
``is_down``               no process, and none to come without a request
``has_exited_for_good``   down, and its last process ended without a request
``was_stopped``           not wanted, and not by its own exit
``standing``              how far its start has come, as its dependents see it
========================  ==========================================================
"""

from __future__ import annotations

from attrs import frozen

from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing
from trio_supervisor.policy.restart import Ending, RestartPolicy, RestartRules


@frozen
class Condition:
    """Condition of one worker at one moment."""

    state: State
    is_wanted: bool
    """Whether it should run, regardless of its state."""
    has_started: bool
    """Whether it has been started since it, or its group, was last reset."""
    ending: Ending | None
    """How its last process ended; None: none has, or that was acknowledged."""

    @property
    def is_down(self) -> bool:
        """Whether it has no process and is not going to start one on its own."""
        return self.state in (State.STOPPED, State.FAILED)

    @property
    def has_exited_for_good(self) -> bool:
        """Whether it exited without a stop request and is not restarted."""
        return self.is_down and self.ending is not None and not self.ending.is_planned

    @property
    def was_stopped(self) -> bool:
        """Whether a stop was requested, and no start since."""
        return not (self.is_wanted or self.has_exited_for_good)

    @property
    def standing(self) -> Standing:
        """Progress of its start, as its dependents see it."""
        if not (self.is_wanted or self.is_down):
            return Standing.NOT_STARTED  # exiting: dependents must not start
        if self.state is State.READY:
            return Standing.READY
        if self.state is State.STOPPED and not self.has_exited_for_good:
            return Standing.NOT_STARTED
        if self.state is State.STOPPED and not self.is_wanted:
            return Standing.EXITED_OK
        if not self.has_started:
            return Standing.NOT_STARTED
        return Standing.FAILED if self.state is State.FAILED else Standing.STARTED

    def has_done_its_work(self, rules: RestartRules) -> bool:
        """Whether it is a one-shot job that has finished.

        A worker that should run for ever never counts, regardless of its exit code.
        """
        if self.standing is not Standing.EXITED_OK or self.ending is None:
            return False
        is_last = self.ending.returncode in rules.give_up_on
        return is_last or rules.policy is not RestartPolicy.ALWAYS
