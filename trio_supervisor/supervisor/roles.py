"""Tell operators from workers, and what a worker may ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.errors import NotPermittedError
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.policy.roles import missing_grant
from trio_supervisor.process.cleanup.ancestry import Ancestry
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import Denied, WorkerRecord

_FREE: Final = frozenset({"ping", "register"})
_REMEMBERED: Final = 1024


@define(eq=False)
class Denials:
    """Tells of calls that were denied: the first of a kind, and then each doubling."""

    _tell: Callable[[Denied], None]
    _counts: dict[tuple[str, str], int] = field(factory=dict, init=False)

    def note(self, who: str, process_id: int | None, do: str, needed: str) -> None:
        """Count one more."""
        key = (who, do)
        if key not in self._counts and len(self._counts) >= _REMEMBERED:
            del self._counts[next(iter(self._counts))]
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count & (count - 1) == 0:
            self._tell(
                Denied(
                    name=who,
                    process_id=process_id,
                    operation=do,
                    needed=needed,
                    count=count,
                )
            )


@frozen(kw_only=True)
class Role:
    """Who is at the other end of a connection that may not do everything."""

    record: WorkerRecord | None
    """The worker that it is, or descends from; None: not known, or a stranger."""
    process_ids: tuple[int, ...]
    """It itself, and what it descends from."""

    @property
    def name(self) -> str:
        """What it is called in a message."""
        if self.record is not None:
            return self.record.name
        return f"pid-{self.process_ids[0]}" if self.process_ids else "unknown"

    @property
    def may(self) -> tuple[str, ...]:
        """What its service grants it."""
        return self.record.may if self.record is not None else ()

    def own(self, status: Object) -> Object:
        """Return of a `StatusReport` what is about itself."""
        pids = set(self.process_ids)
        if self.record is not None and self.record.process_id is not None:
            pids = {self.record.process_id}

        def only(rows: list[Any]) -> list[Any]:
            return [row for row in rows if row["process_id"] in pids]

        return {
            **status,
            "workers": only(status["workers"]),
            "connections": only(status["connections"]),
        }


def is_free(call: IncomingCall) -> bool:
    """Whether every connection may make *call*.

    A ``cancel`` comes to nobody: it ends calls of the connection itself. A ``forward``
    to the connection without an id is how our clients find out whose server it is.
    """
    if call.do == "forward":
        return call.arguments.get("connection_id") == ""
    return call.do in _FREE


def is_own_status(call: IncomingCall, role: Role) -> bool:
    """Whether *call* is for a status of which *role* may see only its own part."""
    if missing_grant(call.do, role.may) != "status":
        return False
    return call.do == "status" or call.arguments.get("wait_ready", False) is False


@define(eq=False, kw_only=True)
class Gatekeeper:
    """Decides for the connections of one supervisor."""

    registry: Registry
    controller_pid: int
    owns_process: bool
    """Whether the controller's process has no children but the controller's."""
    denials: Denials

    def role_of(self, origin: Ancestry | None, registered: int | None) -> Role | None:
        """Return what a connection is; None: an operator's, who may do everything.

        Args:
            origin: Where its process comes from; None: this system does not tell.
            registered: The process id that it registered with; None: it has not.
        """
        by_pid = {
            record.process_id: record
            for record in self.registry.all_records.values()
            if record.process_id is not None
        }
        if origin is not None:
            ancestors = self._below_controller(origin)
            for process_id in ancestors:
                if (record := by_pid.get(process_id)) is not None:
                    return Role(record=record, process_ids=ancestors)
            if self._is_ours(origin, ancestors) or not by_pid.keys().isdisjoint(
                origin.groups
            ):
                pids = ancestors or (origin.process_id,)
                return Role(record=None, process_ids=pids)
        if registered is not None:
            return Role(record=by_pid.get(registered), process_ids=(registered,))
        return None

    def check(self, call: IncomingCall, role: Role) -> None:
        """Check that *role* permits *call*.

        Raises:
            NotPermittedError: it does not; the message names the option to set.
        """
        is_reload = call.do == "restart" and call.arguments.get("signal") == "HUP"
        needed = missing_grant(call.do, role.may, is_reload=is_reload)
        if needed is None:
            return
        pid = role.process_ids[0] if role.process_ids else None
        self.denials.note(role.name, pid, call.do, needed)
        if role.record is None:
            raise NotPermittedError(
                f"{call.do!r} is for operators: process {pid} belongs to no running "
                f"worker whose service may ask for it"
            )
        raise NotPermittedError(
            f"{role.name} may not call {call.do!r}; its service "
            f'{role.record.service!r} needs may=("{needed}",) for that'
        )

    def _below_controller(self, origin: Ancestry) -> tuple[int, ...]:
        pids = origin.ancestors
        if self.controller_pid in pids:
            return pids[: pids.index(self.controller_pid)]
        return pids

    def _is_ours(self, origin: Ancestry, ancestors: tuple[int, ...]) -> bool:
        if origin.process_id == self.controller_pid:
            return False
        if not origin.is_known or origin.is_marked:
            return True
        return self.owns_process and self.controller_pid in origin.ancestors
