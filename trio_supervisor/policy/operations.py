"""What may be asked of the fleet, and how far it has come. Data, without decisions.

An operation says what is to happen to which workers; `scheduler.decide` says, whenever
anything has changed, what to do next for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

from attrs import define, field, frozen

from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import (
    Condition,
    Needs,
    Standing,
    dependents,
    needs_of,
    stop_order,
)
from trio_supervisor.policy.restart import Cause


class Member(Protocol):
    """What a decision needs to know of one worker. Compared by identity."""

    @property
    def name(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def standing(self) -> Standing: ...
    @property
    def incarnation(self) -> int:
        """Number of its latest process; 0: it has had none."""
        ...

    @property
    def last_crash(self) -> int:
        """Number of the latest process that crashed and was restarted; 0: none."""
        ...

    @property
    def is_wanted(self) -> bool: ...
    @property
    def has_process(self) -> bool: ...
    @property
    def is_down(self) -> bool:
        """Whether it has no process, and starts none on its own."""
        ...

    @property
    def is_stable(self) -> bool:
        """Whether it has been ready for ``stable_for`` seconds."""
        ...

    @property
    def is_in_crash_loop(self) -> bool: ...
    @property
    def is_failing(self) -> bool: ...
    @property
    def is_retired(self) -> bool: ...
    @property
    def was_stopped(self) -> bool: ...
    @property
    def has_exited_for_good(self) -> bool: ...
    @property
    def has_done_its_work(self) -> bool: ...

    # Texts for the reason of a failure.

    @property
    def trouble(self) -> str: ...
    @property
    def last_exit(self) -> str: ...
    @property
    def crash_text(self) -> str: ...
    @property
    def trial_text(self) -> str: ...


class Links(Protocol):
    """How the services of one generation depend on each other."""

    @property
    def needs(self) -> Needs: ...
    @property
    def rank(self) -> Mapping[str, int]:
        """The place of each service in the declaration."""
        ...

    def members_of(self, service: str) -> Sequence[Member]:
        """Return the workers that are *service* for its dependents."""
        ...

    def unmet(self, service: str) -> Sequence[tuple[str, Condition]]:
        """Return the dependencies of *service* that are not satisfied yet."""
        ...


@frozen(eq=False)
class StopOperation:
    """Stop workers; a worker stops when all its dependents have exited.

    A dependent that is started again before it has exited is not waited for.
    """

    members: Sequence[Member]
    needs: Needs
    rank: Mapping[str, int]
    """Services that may stop at the same time begin in reverse order of declaration."""
    cause: Cause = Cause.STOP
    reason: str = ""
    is_for_good: bool = False
    """Whether the workers are never started again."""
    whole: frozenset[str] = frozenset()
    """Services that are stopped entirely: dependents that start in the meantime are
    stopped before them."""
    links: Links | None = None
    """Where those dependents are found."""


@frozen(eq=False)
class GroupRestart:
    """Restart the workers of a restart group; none starts before all have exited."""

    crashed: Member
    """The worker whose crash is the reason. It has no process."""
    members: Sequence[Member]
    """The others."""
    needs: Needs
    rank: Mapping[str, int]
    is_forgiven: bool
    """Whether the crashed worker's own restart limit is reset as well."""

    @property
    def cause(self) -> Cause:
        return Cause.GROUP

    @property
    def reason(self) -> str:
        return f"{self.crashed.name} crashed"


class Order(Enum):
    """In which order a planned restart goes through services."""

    TOGETHER = "together"
    """Dependents stop before the workers that they need, and start after them."""
    GRADUAL = "gradual"
    """Dependencies are restarted first, and are ready before their dependents stop."""


@frozen(eq=False)
class RestartOperation:
    """Restart workers, or start those without a process, until all are ready."""

    members: Sequence[Member]
    needs: Needs
    links: Links
    cause: Cause = Cause.RESTART
    reason: str = ""
    order: Order = Order.TOGETHER
    max_unavailable: int | None = None
    """Maximum number of workers per service restarted at once; None: no limit."""


@frozen(eq=False)
class StartOperation:
    """Wait until workers that were asked to start are up.

    A worker is up when it has been ready for ``stable_for`` seconds, or is a one-shot
    job that has exited successfully.
    """

    since: Sequence[tuple[Member, int]]
    """Each worker, with the incarnation from which on it counts."""

    @property
    def members(self) -> list[Member]:
        return [member for member, _ in self.since]


@frozen(eq=False)
class TrialOperation:
    """Wait until new workers of a generation that is to take over are up."""

    members: Sequence[Member]
    links: Links
    may_fail: Collection[Member] = ()
    """Workers that may fail, because their predecessors did."""
    is_stable: bool = False
    """Whether to wait for ``stable_for`` as well."""


Operation: TypeAlias = (
    StopOperation | GroupRestart | RestartOperation | StartOperation | TrialOperation
)


@define(eq=False)
class RunningOperation:
    """An operation and how far it has come; changed only as `decide` says."""

    operation: Operation
    members: list[Member] = field(init=False)
    """Its workers, and those that joined it."""
    before: dict[Member, tuple[int, bool]] = field(factory=dict, init=False)
    """Incarnation of each when the operation began, and whether it was wanted."""
    waiting: dict[Member, None] = field(factory=dict, init=False)
    """Workers whose turn is still to come."""
    begun: dict[Member, int] = field(factory=dict, init=False)
    """Workers whose turn has come: the incarnation that completes it."""
    first_out: Mapping[str, frozenset[str]] = field(init=False)
    """Services that must exit before a service stops, by name."""
    ahead: Mapping[str, frozenset[str]] = field(init=False)
    """Services of the operation that a service depends on, by name."""

    def __attrs_post_init__(self) -> None:
        self.members = []
        self.join(self.operation.members)

    def join(self, members: Iterable[Member]) -> None:
        """Include *members*; those that had finished get another turn."""
        for member in members:
            if member not in self.before:
                self.members.append(member)
            self.before[member] = member.incarnation, member.is_wanted
            self.begun.pop(member, None)
            self.waiting[member] = None
        names = {member.service for member in self.members}
        self.first_out, self.ahead = {}, {}
        if isinstance(self.operation, StopOperation | GroupRestart):
            self.first_out = stop_order(names, self.operation.needs)
        elif isinstance(self.operation, RestartOperation):
            needs = self.operation.needs
            self.first_out = {s: dependents({s}, needs) & names for s in names}
            self.ahead = {s: needs_of({s}, needs) & names for s in names}

    def begin(self, member: Member, until: int) -> None:
        """Note that the turn of *member* has come, until incarnation *until* is up."""
        self.waiting.pop(member, None)
        self.begun[member] = until

    def finish(self, member: Member) -> None:
        """Note that *member* has finished."""
        self.waiting.pop(member, None)
        self.begun.pop(member, None)


@define(eq=False)
class FleetTable:
    """All facts that decisions are made from."""

    links: dict[Member, Links] = field(factory=dict)
    """The generation of each worker."""
    operations: list[RunningOperation] = field(factory=list)
    """In the order in which they began."""
    under_way: dict[Member, int] = field(factory=dict)
    """Planned restarts that take a place: the incarnation that completes each."""
    max_concurrently: int | None = None
    """Maximum number of planned restarts at once; None: no limit."""
    held: frozenset[Member] = frozenset()
    """Workers that may not start before others have exited: see `held_members`."""
    is_closing: bool = False
    """Whether a shutdown has begun: no restart begins."""


# What there is to do.


@frozen(eq=False)
class StopWorker:
    running: RunningOperation
    member: Member


@frozen(eq=False)
class RestartWorker:
    running: RunningOperation
    member: Member
    is_reset: bool = False
    """Whether its dependents are to wait for its new process."""


@frozen(eq=False)
class AlreadyRestarted:
    """The worker has a newer process than the operation found."""

    running: RunningOperation
    member: Member


@frozen(eq=False)
class Joined:
    """Workers that started in the meantime are part of the operation now."""

    running: RunningOperation
    members: Sequence[Member]


@frozen(eq=False)
class Finished:
    """The worker's part of the operation has finished."""

    running: RunningOperation
    member: Member


@frozen(eq=False)
class Succeeded:
    running: RunningOperation


@frozen(eq=False)
class Failed:
    running: RunningOperation
    reason: str


Action: TypeAlias = (
    StopWorker
    | RestartWorker
    | AlreadyRestarted
    | Joined
    | Finished
    | Succeeded
    | Failed
)


def by_service(members: Iterable[Member]) -> dict[str, list[Member]]:
    """Return *members* by the name of their service."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.service, []).append(member)
    return found
