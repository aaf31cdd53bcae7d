"""Diagnose from outside a worker whose agent cannot answer."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio
from attrs import define

from trio_supervisor.errors import ConnectionLostError, UnavailableError
from trio_supervisor.supervisor.controller_link import ControllerLink
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.unresponsive import diagnose_blockage, inspect_twice
from trio_supervisor.supervisor.worker_names import WorkerNames
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import parse_operation
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.worker_messages import Doctor
from trio_supervisor.wire.workers import WorkerRecord

_SHORT_DURATION: Final = 0.5
"""For an examination of a worker whose agent is out of resources [s]."""
_TRIES: Final = 2
# A process exits within this time after its connection ends, if it exits [s].
_EXITS_WITHIN: Final = 0.5


@define(eq=False)
class OutsideDiagnosis:
    """Diagnoses workers that are not connected, have exited or cannot answer."""

    _registry: Registry
    _names: WorkerNames
    _controller: ControllerLink

    async def examine(self, name: str, arguments: Object) -> Object | None:
        """Return the fields of a `Diagnosis` of a worker that is not connected.

        None: *name* is unknown, or the worker has connected.
        """
        found = await self._examine_blocked(name)
        return found if found is not None else await self._examine(name, arguments)

    async def _examine_blocked(self, name: str) -> Object | None:
        """Return a diagnosis of a worker that cannot even connect; None if it may."""
        record = self._names.record(name)
        if record is None or record.process_id is None or not record.connects:
            return None
        name = record.name

        def is_silent() -> bool:
            is_same = self._registry.records.get(name) == record
            return is_same and not self._registry.is_connected(name)

        inspect = partial(self._controller.inspect, record)
        began = trio.current_time()
        for _ in range(_TRIES):  # on a busy machine an inspection may be late
            blockage = await inspect_twice(inspect, is_silent)
            if blockage is not None:
                passed = trio.current_time() - began
                return diagnose_blockage(
                    blockage, record.process_id, passed, "not connected"
                )
            if not is_silent():
                break
        return None

    async def _examine(self, name: str, arguments: Object) -> Object | None:
        """Return what is known of a command, or of a worker without an agent."""
        from trio_supervisor.supervisor.doctor import (
            diagnose_end,
            examine_from_outside,
        )

        operation = parse_operation("doctor", arguments)
        record = self._names.record(name)
        is_connected = record is not None and self._registry.is_connected(record.name)
        if record is None or is_connected or not isinstance(operation, Doctor):
            return None
        lines = await self._controller.last_lines(record.name)
        began = trio.current_time()
        found = await examine_from_outside(record, operation.duration, lines)
        if found is None or self._has_exited(record):
            end = await self._controller.inspect(record)
            passed = trio.current_time() - began
            now = self._registry.records.get(record.name)
            return diagnose_end(record, end, passed, now)
        return found

    async def examine_exhausted(self, record: WorkerRecord, problem: str) -> Object:
        """Return the fields of a `Diagnosis` of a worker that is out of resources.

        Args:
            problem: What its agent answered.

        Raises:
            UnavailableError: the process exited during the examination.
        """
        from trio_supervisor.supervisor.doctor import examine_from_outside

        lines = await self._controller.last_lines(record.name)
        found = await examine_from_outside(record, _SHORT_DURATION, lines, problem)
        if found is None:
            raise UnavailableError(f"{record.name} cannot examine itself: {problem}")
        return found

    async def explain_exit(
        self,
        lost: ConnectionLostError,
        record: WorkerRecord | None,
        do: str,
        duration: float,
    ) -> Object:
        """Return a diagnosis of a worker that exited; raise unless *do* is the doctor.

        Raises:
            ConnectionLostError: with the exit status, if the worker has exited.
        """
        end: Object = {}
        for _ in range(_TRIES):  # its connection ends before its process exits
            end = await self._controller.inspect(record)
            if end.get("way") in ("ended", None):
                break
            await trio.sleep(_EXITS_WITHIN)
        if record is None or end.get("way") != "ended":
            raise lost
        if do == "doctor":
            from trio_supervisor.supervisor.doctor import diagnose_end

            now = self._registry.records.get(record.name)
            return diagnose_end(record, end, duration, now)
        path = end.get("post_mortem")
        raise ConnectionLostError(
            f"{record.name} (pid {record.process_id}) exited before it answered "
            f"{brief(do)}: {end.get('exit')}{f'; post-mortem: {path}' if path else ''}"
        ) from lost

    def _has_exited(self, record: WorkerRecord) -> bool:
        now = self._registry.records.get(record.name)
        return now is None or now.process_id != record.process_id
