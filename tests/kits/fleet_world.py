"""A fleet without processes: events of workers happen when a test asks for them.

It carries out what the scheduler decides, and checks each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field

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
    Operation,
    Order,
    RestartOperation,
    RestartWorker,
    RunningOperation,
    StopOperation,
    StopWorker,
    Succeeded,
)
from trio_supervisor.policy.order import (
    Condition,
    Needs,
    Standing,
    dependents,
    needs_of,
    unmet,
)
from trio_supervisor.policy.scheduler import (
    decide,
    held_members,
    is_over,
    obstacle_of,
)

CRASH_LOOP = 5


@define(eq=False)
class FakeMember:
    """A worker whose process does only what a test says."""

    name: str
    service: str
    state: State = State.STOPPED
    incarnation: int = 0
    last_crash: int = 0
    crashes: int = 0
    is_wanted: bool = True
    has_process: bool = False
    has_started: bool = False
    """Since it, or its group, was reset."""
    is_due: bool = True
    """Whether it is to start, or is waiting to."""
    is_retired: bool = False
    is_failing: bool = False
    has_exited_for_good: bool = False
    has_done_its_work: bool = False
    trouble: str = "exit code 1"
    last_exit: str = "exit code 1"
    crash_text: str = "crashed"
    trial_text: str = "failed its trial"

    @property
    def is_down(self) -> bool:
        return self.state in (State.STOPPED, State.FAILED)

    @property
    def is_stable(self) -> bool:
        return self.state is State.READY

    @property
    def is_in_crash_loop(self) -> bool:
        return self.crashes >= CRASH_LOOP and self.state is State.BACKOFF

    @property
    def was_stopped(self) -> bool:
        return not (self.is_wanted or self.has_exited_for_good)

    @property
    def standing(self) -> Standing:
        if not (self.is_wanted or self.is_down):
            return Standing.NOT_STARTED
        if self.state is State.READY:
            return Standing.READY
        if self.state is State.FAILED:
            return Standing.FAILED if self.has_started else Standing.NOT_STARTED
        if self.has_exited_for_good and not self.is_wanted:
            return Standing.EXITED_OK
        return Standing.STARTED if self.has_started else Standing.NOT_STARTED

    # Requests.

    def ask_stop(self) -> None:
        self.is_wanted = self.is_due = False
        if self.has_process:
            self.state = State.STOPPING
        else:
            self.has_exited_for_good = False
            self.state = State.STOPPED

    def ask_restart(self) -> None:
        self.is_wanted = True
        if self.has_process:
            self.state = State.STOPPING
        else:
            self.is_due = True

    # What its process does.

    def become_ready(self) -> None:
        assert self.state is State.STARTING
        self.state, self.crashes = State.READY, 0

    def exit(self) -> None:
        """Exit as requested."""
        assert self.state is State.STOPPING
        self.has_process = False
        self.state = State.BACKOFF if self.is_wanted else State.STOPPED
        self.is_due = self.is_wanted

    def crash(self) -> None:
        assert self.state in (State.STARTING, State.READY)
        self.has_process = False
        self.last_crash = self.incarnation
        self.crashes += 1
        self.state = State.BACKOFF

    def fail(self) -> None:
        """Exit with a failure, and stay so."""
        assert self.state in (State.STARTING, State.READY)
        self.has_process = self.is_wanted = self.is_due = False
        self.has_exited_for_good = True
        self.state = State.FAILED


@define(eq=False)
class FakeLinks:
    """Services, what they need, and their workers."""

    needs: Needs
    members: Mapping[str, list[FakeMember]]

    @property
    def rank(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.members)}

    def members_of(self, service: str) -> Sequence[Member]:
        return self.members[service]

    def unmet(self, service: str) -> Sequence[tuple[str, Condition]]:
        standing = {
            name: [member.standing for member in members]
            for name, members in self.members.items()
        }
        return unmet(service, self.needs, standing)


@define(eq=False)
class World:
    """Workers, operations on them, and a readable list of all that happened."""

    links: FakeLinks
    table: FleetTable = field(factory=FleetTable, init=False)
    ended: dict[RunningOperation, str] = field(factory=dict, init=False)
    """Operations that have ended, with the reason of a failure."""
    away: dict[RunningOperation, set[FakeMember]] = field(factory=dict, init=False)
    """Workers that a rolling restart took away and that are not ready again."""
    stopped: set[FakeMember] = field(factory=set, init=False)
    """Workers that the operator stopped, and has not started since."""
    history: list[str] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.table.links = dict.fromkeys(self.everyone, self.links)
        self.settle()

    @property
    def everyone(self) -> list[FakeMember]:
        return [m for members in self.links.members.values() for m in members]

    def begin(self, operation: Operation) -> RunningOperation:
        running = RunningOperation(operation)
        names = " ".join(member.name for member in operation.members)
        self.history.append(f"begin {type(operation).__name__} {names}")
        self.table.operations.append(running)
        self.away[running] = set()
        self.settle()
        return running

    def cancel(self, running: RunningOperation) -> None:
        self.history.append(f"cancel {type(running.operation).__name__}")
        self._end(running, "cancelled")
        self.settle()

    def happen(self, member: FakeMember, what: str) -> None:
        self.history.append(f"{member.name} {what}")
        getattr(member, what)()
        self.settle()

    def settle(self) -> None:
        """Do all that can be done before anything else happens."""
        for _ in range(1000):
            self._prune()
            self.table.held = held_members(self.table)
            if actions := decide(self.table):
                for action in actions:
                    self._do(action)
            elif not self._advance_one():
                return
        raise AssertionError("it never settles")

    def calm(self) -> None:
        """Let everything go well from now on, until nothing is left to happen."""
        for _ in range(1000):
            for member in self.everyone:
                if member.state is State.STOPPING:
                    return_to = "exit"
                elif member.state is State.STARTING:
                    return_to = "become_ready"
                elif member.state is State.BACKOFF and not member.is_due:
                    member.is_due = True
                    self.settle()
                    break
                else:
                    continue
                self.happen(member, return_to)
                break
            else:
                return
        raise AssertionError("it never comes to rest")

    def _prune(self) -> None:
        for member, since in list(self.table.under_way.items()):
            if is_over(member, since):
                del self.table.under_way[member]
        for gone in self.away.values():
            gone -= {m for m in gone if m.state is State.READY or not m.is_wanted}

    def _advance_one(self) -> bool:
        """Start a worker, or let it wait; return whether anything changed."""
        for member in self.everyone:
            is_idle = not member.has_process and member.is_wanted and member.is_due
            if not is_idle:
                continue
            if obstacle_of(self.table, member):
                if member.state is State.WAITING:
                    continue
                member.state = State.WAITING
                return True
            self._check_start(member)
            member.has_process = member.has_started = True
            member.has_exited_for_good = member.is_due = False
            member.incarnation += 1
            member.state = State.STARTING
            self.history.append(f"{member.name} starts")
            return True
        return False

    def _do(self, action: Action) -> None:
        running = action.running
        assert running in self.table.operations, "it has ended, and goes on"
        match action:
            case StopWorker(member=member):
                self._check_stop(running, fake(member))
                self.history.append(f"{member.name} is asked to stop")
                running.begin(member, member.incarnation)
                fake(member).ask_stop()
                self.stopped.add(fake(member))
            case RestartWorker(member=member, is_reset=is_reset):
                assert member.is_wanted, f"{member.name} was stopped, and restarts"
                self._check_restart(running, fake(member))
                self.history.append(f"{member.name} is asked to restart")
                running.begin(member, member.incarnation + 1)
                if isinstance(running.operation, RestartOperation):
                    self.table.under_way[member] = member.incarnation + 1
                if is_reset:
                    fake(member).has_started = False
                fake(member).ask_restart()
            case AlreadyRestarted(member=member):
                running.begin(member, member.incarnation)
            case Joined(members=members):
                running.join(members)
            case Finished(member=member):
                running.finish(member)
                if isinstance(running.operation, RestartOperation):
                    self.table.under_way.pop(member, None)
            case Succeeded():
                self._end(running, "")
            case Failed(reason=reason):
                assert reason
                self._end(running, reason)

    def _end(self, running: RunningOperation, reason: str) -> None:
        assert running not in self.ended, "it has ended before"
        self.ended[running] = reason
        self.table.operations.remove(running)
        self.history.append(f"end {type(running.operation).__name__} {reason}".strip())
        if isinstance(group := running.operation, GroupRestart):
            for member in (group.crashed, *running.members):
                fake(member).has_started = False

    # Nobody is harmed.

    def _check_start(self, member: FakeMember) -> None:
        """All that it needs is there; its group and its order let it."""
        assert not member.has_process
        for name, condition in self.links.needs.get(member.service, {}).items():
            for other in self.links.members[name]:
                is_there = {
                    "started": other.has_started,
                    "ready": other.state is State.READY or other.has_exited_for_good,
                    "exited_ok": other.has_exited_for_good,
                }[condition]
                assert is_there, f"{member.name} starts without {other.name}"
        for running in self.table.operations:
            group = running.operation
            if isinstance(group, GroupRestart) and (
                member is group.crashed or member in running.members
            ):
                raise AssertionError(f"{member.name} starts before its group exited")

    def _check_stop(self, running: RunningOperation, member: FakeMember) -> None:
        """Nothing that this operation stops still depends on it."""
        needed_by = dependents({member.service}, self.links.needs)
        for other in running.members:
            if other.service in needed_by and not other.is_wanted:
                assert not other.has_process, f"{member.name} stops before {other.name}"

    def _check_restart(self, running: RunningOperation, member: FakeMember) -> None:
        operation = running.operation
        if not isinstance(operation, RestartOperation):
            return
        needs = self.links.needs
        if operation.order is Order.TOGETHER:
            needed_by = dependents({member.service}, needs)
            for other in running.members:
                if other.service in needed_by and other in running.waiting:
                    raise AssertionError(f"{member.name} stops before {other.name}")
        else:
            needed = needs_of({member.service}, needs)
            for other in (*running.waiting, *running.begun):
                assert other.service not in needed, f"{member.name} goes first"
        if (most := operation.max_unavailable) is not None and member.is_stable:
            self.away[running].add(member)
            mates = [m for m in self.away[running] if m.service == member.service]
            assert len(mates) <= most, f"too many of {member.service} are away"


def fake(member: Member) -> FakeMember:
    assert isinstance(member, FakeMember)
    return member


def stop_of(links: FakeLinks, members: Sequence[FakeMember]) -> StopOperation:
    """The stop of *members* and of what depends on their services."""
    services = {member.service for member in members}
    whole = frozenset(services) | dependents(services, links.needs)
    every = [m for name in links.members if name in whole for m in links.members[name]]
    return StopOperation(every, links.needs, links.rank, whole=whole, links=links)
