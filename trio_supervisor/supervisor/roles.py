"""Distinguish operators from workers, and decide what a worker may call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.errors import NotPermittedError
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.policy.roles import missing_grant
from trio_supervisor.process.cleanup.ancestry import Ancestry
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.wire.controller_messages import ReportDenial
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.workers import WorkerRecord

_FREE: Final = frozenset({"ping", "register"})
_REMEMBERED: Final = 1024


@define(eq=False)
class Denials:
    """Reports denied calls: the first of a kind, then whenever their number doubles."""

    _report: Callable[[ReportDenial], None]
    _counts: dict[tuple[str, str], int] = field(factory=dict, init=False)

    def note(self, who: str, process_id: int | None, do: str, needed: str) -> None:
        """Count a denied call; report it if its count is a power of two."""
        key = (who, do)
        if key not in self._counts and len(self._counts) >= _REMEMBERED:
            del self._counts[next(iter(self._counts))]
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count & (count - 1) == 0:
            self._report(
                ReportDenial(
                    name=who,
                    process_id=process_id,
                    operation=do,
                    needed=needed,
                    count=count,
                )
            )


@frozen(kw_only=True)
class Role:
    """The process at the other end of a connection with limited permissions."""

    record: WorkerRecord | None
    """The worker that it is, or descends from; None: unknown or unmanaged."""
    process_ids: tuple[int, ...]
    """Its own, then those of its ancestors."""

    @property
    def name(self) -> str:
        """Name for messages."""
        if self.record is not None:
            return self.record.name
        return f"pid-{self.process_ids[0]}" if self.process_ids else "unknown"

    @property
    def may(self) -> tuple[str, ...]:
        """``may`` of its service."""
        return self.record.may if self.record is not None else ()

    def own(self, status: Object) -> Object:
        """Return the part of a `StatusReport` that is about this process."""
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
    """Return whether every connection may make *call*.

    ``cancel`` never arrives here: it ends calls of the connection itself.
    """
    return call.do in _FREE or is_probe(call)


def is_probe(call: IncomingCall) -> bool:
    """Return whether *call* only finds out which server answers, as our clients do."""
    return call.do == "forward" and call.arguments.get("connection_id") == ""


def is_own_status(call: IncomingCall, role: Role) -> bool:
    """Return whether *role* gets only its own part of the status for *call*."""
    if missing_grant(call.do, role.may) != "status":
        return False
    return call.do == "status" or call.arguments.get("wait_ready", False) is False


@define(eq=False, kw_only=True)
class Gatekeeper:
    """Decides what the connections of one supervisor may do."""

    registry: Registry
    controller_pid: int
    owns_process: bool
    """Whether the controller's process has no children but the controller's."""
    denials: Denials

    def role_of(self, origin: Ancestry | None, registered: int | None) -> Role | None:
        """Return the role of a connection; None: an operator's, without limits.

        Args:
            origin: Ancestors of its process; None: this system does not tell.
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

    def is_worker(self, origin: Ancestry | None) -> bool:
        """Return whether *origin* is a worker or its child, known to the kernel.

        Such a process may connect as any user; one that has exited already
        may have passed its connection to any other.
        """
        if origin is None or not origin.is_known:
            return False
        return self.role_of(origin, None) is not None

    def check(self, call: IncomingCall, role: Role) -> None:
        """Check that *role* may make *call*.

        Raises:
            NotPermittedError: it may not; the message names the option to set.
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
                f'worker with may=("{needed}",)'
            )
        raise NotPermittedError(
            f"{role.name} may not call {call.do!r}; its service "
            f'{role.record.service!r} needs may=("{needed}",)'
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
