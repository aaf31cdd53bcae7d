"""Decide which workers may start, stop and restart now. Pure: facts in, actions out.

`decide` is called again whenever anything has changed, and keeps nothing between calls.
It has no clock, no randomness and no wait; see docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.operations import (
    Action,
    AlreadyRestarted,
    Failed,
    Finished,
    FleetTable,
    GroupRestart,
    Joined,
    Member,
    Order,
    RestartOperation,
    RestartWorker,
    RunningOperation,
    StartOperation,
    StopOperation,
    StopWorker,
    Succeeded,
    TrialOperation,
)
from trio_supervisor.policy.order import Standing, dependents, describe_need
from trio_supervisor.policy.rolling import RollingLimits, WorkerFacts, next_batch


def decide(table: FleetTable) -> list[Action]:
    """Return what to do next, for the first operation that has anything to do.

    The caller does it, and asks again until there is nothing to do. Workers to stop
    are those of one service, so that services begin in their order.
    """
    for running in table.operations:
        if actions := list(_next_for(table, running)):
            return actions
    return []


def _next_for(table: FleetTable, running: RunningOperation) -> Iterator[Action]:
    match operation := running.operation:
        case StopOperation():
            return _next_stops(running, operation)
        case GroupRestart():
            return _next_of_group(running, operation)
        case RestartOperation():
            return _next_restarts(table, running, operation)
        case StartOperation():
            return _next_of_start(table, running, operation)
        case TrialOperation():
            return _next_of_trial(table, running, operation)
        case _:
            assert_never(operation)


# Whether a worker may start.


def obstacle_of(table: FleetTable, member: Member) -> str:
    """Return what the start of *member* has to wait for; empty: nothing."""
    if member in table.held:
        return "the other workers of its group to exit"
    links = table.links.get(member)
    unmet = links.unmet(member.service) if links else ()
    return ", ".join(describe_need(name, condition) for name, condition in unmet)


def held_members(table: FleetTable) -> frozenset[Member]:
    """Return the workers that may not start before others have exited."""
    held: set[Member] = set()
    for running in table.operations:
        match running.operation:
            case GroupRestart(crashed=crashed):
                held |= {crashed, *running.members}
            case RestartOperation(order=Order.TOGETHER) if any(running.ahead.values()):
                present = _present(running)
                held |= {
                    member
                    for member in running.begun
                    if not running.ahead[member.service].isdisjoint(present)
                }
    return frozenset(held)


def hopeless_wait(table: FleetTable, member: Member) -> str:
    """Return why it is pointless to wait for the start of *member*; empty: it is not.

    What it needs has exited for good, or is in a crash loop.
    """
    links = table.links.get(member)
    if links is None or member.state is not State.WAITING or member in table.held:
        return ""
    for name, condition in links.unmet(member.service):
        for other in links.members_of(name):
            if problem := _absence_of(table, other):
                need = describe_need(name, condition)
                return f"is waiting for {need}, but {other.name} {problem}"
    return ""


def _absence_of(table: FleetTable, member: Member) -> str:
    """Return why *member* is no use to its dependents; empty: it is, or will be."""
    if member.is_in_crash_loop:
        return f"is in backoff: {member.trouble}"
    if member.is_wanted or not member.is_down:
        return hopeless_wait(table, member)
    is_done = member.standing is Standing.EXITED_OK
    return "" if is_done else f"is {member.state.value}"


# Stops.


def _next_stops(
    running: RunningOperation, operation: StopOperation
) -> Iterator[Action]:
    for member in running.begun:
        if member.is_down or member.is_wanted:  # wanted: another call has started it
            yield Finished(running, member)
            return
    name = _next_service(running, operation)
    if name is None:
        if not running.begun:
            yield Succeeded(running)
        return
    if late := _late(operation, name):
        yield Joined(running, late)
        return
    for member in running.waiting:
        if member.service == name:
            yield StopWorker(running, member)


def _next_of_group(
    running: RunningOperation, operation: GroupRestart
) -> Iterator[Action]:
    for member in running.begun:
        if not member.has_process:
            yield Finished(running, member)
            return
    name = _next_service(running, operation)
    if name is None:
        if not running.begun:
            yield Succeeded(running)
        return
    for member in running.waiting:
        if member.service == name:
            # A worker in a backoff stays in it: otherwise two crashing workers that
            # restart each other would do so without any delay.
            is_running = member.is_wanted and member.state is not State.BACKOFF
            has_ended = not (is_running or member.has_process)
            action = Finished if has_ended else RestartWorker
            yield action(running, member)


def _next_service(
    running: RunningOperation, operation: StopOperation | GroupRestart
) -> str | None:
    """Return the service to stop next; None: none may stop now.

    They begin one after the other, so that what they report has their order.
    """
    if not all(map(_has_reacted, running.begun)):
        return None
    left = {member.service for member in (*running.waiting, *running.begun)}
    free = {
        member.service
        for member in running.waiting
        if running.first_out[member.service].isdisjoint(left)
    }
    return max(free, key=lambda name: operation.rank.get(name, 0), default=None)


def _has_reacted(member: Member) -> bool:
    """Return whether *member*, which was asked to stop, does so."""
    is_stopping = member.state in (State.STOPPING, State.UNHEALTHY)
    return is_stopping or not member.has_process


def _late(operation: StopOperation, name: str) -> list[Member]:
    """Return the workers that came to depend on service *name* in the meantime.

    They were started, and another operation may be stopping them again.
    """
    if operation.links is None or name not in operation.whole:
        return []
    return [
        member
        for other in dependents({name}, operation.needs)
        for member in operation.links.members_of(other)
        if member.is_wanted or not member.is_down
    ]


# Planned restarts.


def is_over(member: Member, since: int) -> bool:
    """Return whether the restart of *member* takes no place any longer."""
    if not member.is_wanted and member.is_down:
        return True  # stopped by another request, or exited for good
    if member.incarnation < since:
        return False
    # In a crash loop it is retried, and the others do not wait for it.
    return member.is_in_crash_loop or member.is_stable or member.is_down


def _next_restarts(
    table: FleetTable, running: RunningOperation, operation: RestartOperation
) -> Iterator[Action]:
    if table.is_closing:
        yield Failed(running, "the controller is shutting down")
        return
    for member, since in running.begun.items():
        if is_over(member, since):
            yield Finished(running, member)
            if problem := _unready_text(member):
                yield Failed(running, problem)
            return
        # A crashed worker keeps its place: nothing else begins before it is ready.
        if member.last_crash >= since:
            yield Failed(running, member.crash_text)
            return
        if problem := hopeless_wait(table, member):
            yield Finished(running, member)
            yield Failed(running, f"{member.name} {problem}")
            return
    for member in running.waiting:
        incarnation, was_wanted = running.before[member]
        if member.is_retired or (was_wanted and not member.is_wanted):
            yield Finished(running, member)  # another call has stopped or removed it
            return
        if member.incarnation > incarnation:
            yield AlreadyRestarted(running, member)
            return
    if not (running.waiting or running.begun):
        yield Succeeded(running)
        return
    for member in _next_turns(table, running, operation):
        is_reset = operation.order is Order.TOGETHER and bool(
            running.first_out[member.service]
        )
        yield RestartWorker(running, member, is_reset)


def _next_turns(
    table: FleetTable, running: RunningOperation, operation: RestartOperation
) -> list[Member]:
    """Return the workers whose turn to be restarted has come."""
    if operation.order is Order.GRADUAL:
        before, busy = running.ahead, (*running.waiting, *running.begun)
        present = {member.service for member in busy}
    else:
        before, present = running.first_out, _present(running)
    free = [m for m in running.waiting if before[m.service].isdisjoint(present)]
    limits = RollingLimits(
        max_unavailable=operation.max_unavailable,
        max_concurrently=table.max_concurrently,
    )
    if not (free and limits.are_any):
        return free
    # A stopped worker never becomes available; do not wait for it.
    services = {member.service for member in free}
    mates = {
        member.name: member
        for service in services
        for member in operation.links.members_of(service)
        if member.is_wanted
    } | {member.name: member for member in running.waiting}
    facts = [
        WorkerFacts(m.name, m.service, m.state is State.READY) for m in mates.values()
    ]
    # A restart that cannot be completed takes no place: others need not wait for it.
    busy_names = [m.name for m in table.under_way if not hopeless_wait(table, m)]
    names = next_batch([m.name for m in free], busy_names, facts, limits)
    return [mates[name] for name in names]


def _present(running: RunningOperation) -> set[str]:
    """Return the services with a running process that is to be restarted."""
    return {
        member.service
        for member in running.members
        if member in running.waiting
        or (member.has_process and member.incarnation <= running.before[member][0])
    }


def _unready_text(member: Member) -> str:
    """Return why *member*, whose restart is over, is not ready; empty: it is."""
    if member.is_retired:  # removed by a scale-down or a reload
        return ""
    if member.state is State.READY or member.standing is Standing.EXITED_OK:
        return ""
    return f"{member.name} is not ready: {member.state.value}, {member.trouble}"


def _named(member: Member, problem: str) -> str:
    return f"{member.name} {problem}" if problem else ""


# Starts, and the trial of a new generation.


def _next_of_start(
    table: FleetTable, running: RunningOperation, operation: StartOperation
) -> Iterator[Action]:
    for member, since in operation.since:
        if member not in running.waiting:
            continue
        if _has_come(member, since):
            if problem := _failed_start_text(member):
                yield Failed(running, problem)
            else:
                yield Finished(running, member)
            return
        if problem := _failure_so_far(table, member, since):
            yield Failed(running, problem)
            return
    if not running.waiting:
        yield Succeeded(running)


def _has_come(member: Member, since: int) -> bool:
    if not member.is_wanted and member.is_down:
        return True  # stopped by another request
    return member.incarnation >= since and (member.is_stable or member.is_down)


def _failed_start_text(member: Member) -> str:
    if member.state is State.FAILED and member.has_exited_for_good:
        return f"{member.name} failed: {member.last_exit}"
    if member.state is State.READY or member.has_exited_for_good:
        return ""
    return f"{member.name} is not ready: {member.state.value}, {member.trouble}"


def _failure_so_far(table: FleetTable, member: Member, since: int) -> str:
    if member.last_crash >= since:
        return member.crash_text
    if member.incarnation >= since and member.is_in_crash_loop:
        return f"{member.name} failed to start: {member.last_exit}"
    return _named(member, hopeless_wait(table, member))


def _next_of_trial(
    table: FleetTable, running: RunningOperation, operation: TrialOperation
) -> Iterator[Action]:
    if table.is_closing:
        yield Failed(running, "the controller is shutting down")
        return
    is_up = True
    for member in operation.members:
        if member.was_stopped or is_excused(table, operation, member):
            continue
        if problem := _failed_trial_text(table, member):
            yield Failed(running, problem)
            return
        is_ready = member.state is State.READY
        has_come = member.is_stable if operation.is_stable else is_ready
        is_up &= has_come or member.has_done_its_work
    if is_up:
        yield Succeeded(running)


def is_excused(table: FleetTable, trial: TrialOperation, member: Member) -> bool:
    """Return whether *member* fails as its predecessor did; it is not waited for."""
    if member not in trial.may_fail:
        return False
    if member.state is not State.WAITING:
        return bool(member.last_crash) or member.is_failing
    return bool(hopeless_wait(table, member)) or any(
        is_excused(table, trial, other)
        for name, _ in trial.links.unmet(member.service)
        for other in trial.links.members_of(name)
    )


def _failed_trial_text(table: FleetTable, member: Member) -> str:
    if member.is_down and not member.has_done_its_work:
        is_to_come = member.incarnation == 0 and member.is_wanted  # not launched yet
        return "" if is_to_come else member.trial_text
    problem = hopeless_wait(table, member)
    return f"{member.name} of the new generation {problem}" if problem else ""
