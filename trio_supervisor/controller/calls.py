"""Handle the calls that the supervisor forwards to the controller."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

import trio
from attrs import frozen

from trio_supervisor.controller import events
from trio_supervisor.controller.core import ControllerCore
from trio_supervisor.controller.metrics import metrics_text
from trio_supervisor.controller.supervisor_link import record_of
from trio_supervisor.errors import (
    NoSuchWorkerError,
    UnavailableError,
    UnknownOperationError,
)
from trio_supervisor.link.answers import answers, find_answer
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.policy.canary import canary_trial
from trio_supervisor.policy.reload import ReloadOptions
from trio_supervisor.process.inspection.black_box import switches_of
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import parse_operation, to_fields
from trio_supervisor.wire.controller_messages import (
    AbortReload,
    Events,
    Health,
    HealthReport,
    Inspect,
    Logs,
    MetricsReport,
    ReadMetrics,
    Reload,
    ReloadReport,
    ReportDenial,
    ReportSpans,
    Restart,
    Scale,
    Shutdown,
    Start,
    Stop,
)

_BATCH: Final = 100
# Less than the supervisor waits for a look [s].
_BURIED_WITHIN: Final = 1.2


def answer(core: ControllerCore, call: IncomingCall) -> Answer:
    """Answer *call*, or return the coroutine that does."""
    operation = parse_operation(call.do, call.arguments)
    if (method := find_answer(PassedOnCalls(core), operation)) is None:
        raise UnknownOperationError(f"the controller has no operation {brief(call.do)}")
    return method(operation, call)


@frozen
class PassedOnCalls:
    """Carries out the calls that the supervisor makes or passes on."""

    _core: ControllerCore

    @answers(Restart)
    def restart(self, operation: Restart, call: IncomingCall) -> Answer:
        return _restart(self._core, operation)

    @answers(Stop)
    def stop(self, operation: Stop, call: IncomingCall) -> Answer:
        self._core.members.choose(operation.names)
        return _stop(self._core, operation.names)

    @answers(Start)
    def start(self, operation: Start, call: IncomingCall) -> Answer:
        self._core.members.choose(operation.names)
        return _done(self._core, self._core.verbs.start(operation.names))

    @answers(Scale)
    def scale(self, operation: Scale, call: IncomingCall) -> Answer:
        return _scale(self._core, operation.counts)

    @answers(Reload)
    def reload(self, operation: Reload, call: IncomingCall) -> Answer:
        return _reload(self._core, operation)

    @answers(AbortReload)
    def abort_reload(self, operation: AbortReload, call: IncomingCall) -> Answer:
        return _done(self._core, self._core.reloader.abort())

    @answers(Health)
    def health(self, operation: Health, call: IncomingCall) -> Answer:
        is_ok, details = self._core.readiness.health(operation.kind)
        return to_fields(HealthReport(is_ok=is_ok, details=details))

    @answers(Inspect)
    def inspect(self, operation: Inspect, call: IncomingCall) -> Answer:
        return _inspect(self._core, operation.name, operation.process_id)

    @answers(ReadMetrics)
    def metrics(self, operation: ReadMetrics, call: IncomingCall) -> Answer:
        return _metrics(self._core, operation)

    @answers(ReportDenial)
    def report_denial(self, operation: ReportDenial, call: IncomingCall) -> Answer:
        self._core.on_event(
            events.CallDenied(
                name=operation.name,
                process_id=operation.process_id,
                operation=operation.operation,
                needed=operation.needed,
                count=operation.count,
            )
        )
        return {}

    @answers(ReportSpans)
    def report_spans(self, operation: ReportSpans, call: IncomingCall) -> Answer:
        self._core.observer.on_spans(operation.spans, operation.dropped)
        return {}

    @answers(Events)
    def events(self, operation: Events, call: IncomingCall) -> Answer:
        return _events(self._core, call, operation.follow)

    @answers(Logs)
    def logs(self, operation: Logs, call: IncomingCall) -> Answer:
        return _logs(self._core, call, operation)

    @answers(Shutdown)
    def shutdown(self, operation: Shutdown, call: IncomingCall) -> Answer:
        self._core.shutdown.request("shutdown requested by a client")
        return _until_stopped(self._core, call) if operation.wait else {}


async def _metrics(core: ControllerCore, operation: ReadMetrics) -> Fields:
    text = await metrics_text(
        core, per_worker=operation.per_worker, is_open=operation.openmetrics
    )
    return to_fields(MetricsReport(data=text))


async def _done(core: ControllerCore, work: Coroutine[Any, Any, None]) -> Fields:
    try:
        await work
    finally:
        await core.publish()
    return {}


async def _scale(core: ControllerCore, counts: Mapping[str, int]) -> Fields:
    await _done(core, core.verbs.scale(counts))
    return {"not_ready": core.members.not_ready(counts)}


def _restart(core: ControllerCore, operation: Restart) -> Answer:
    names, reason, verbs = operation.names, operation.reason, core.verbs
    if operation.incarnation is not None:  # a monitor, which means just this one
        number = operation.generation
        work = verbs.restart_for_monitor(names, operation.incarnation, number, reason)
    else:
        limit = operation.max_unavailable if operation.rolling else None
        work = verbs.restart(names, reason, limit)
    return _done(core, work)


async def _stop(core: ControllerCore, names: Sequence[str]) -> Fields:
    chosen = core.members.choose(names)
    try:
        stopped = await core.verbs.stop(names, "")
    finally:
        await core.publish()
    if again := [child.name for child in chosen if child.is_wanted]:
        raise UnavailableError(f"{', '.join(again)}: started again by another client")
    return {"stopped": list(stopped)}


async def _until_stopped(core: ControllerCore, call: IncomingCall) -> Fields:
    call.progress({"has_begun": True})
    await core.shutdown.wait_workers_stopped()
    return {"ends_process": core.owns_process}


async def _reload(core: ControllerCore, operation: Reload) -> Fields:
    dry_run = operation.dry_run
    trial = canary_trial(operation.canary, operation.canary_for, dry_run=dry_run)
    options = ReloadOptions(
        changed_only=operation.changed_only, dry_run=dry_run, canary=trial
    )
    plan = await core.reloader.reload(None, options)
    report = ReloadReport(
        generation=core.generation.number,
        lines=tuple(plan.lines()),
        services=tuple(service.to_json() for service in plan.services),
        not_ready=dict(plan.not_ready),
        canaries=plan.canaries,
    )
    return to_fields(report)


async def _inspect(core: ControllerCore, name: str, process_id: int) -> Fields:
    named = [child for child in core.everyone() if child.name == name]
    if not named:
        raise NoSuchWorkerError(f"worker {brief(name)} no longer exists")
    for child in named:
        process = child.process
        if process is None or process.pid != process_id:
            continue
        way, data = await core.post_mortems.look_from_outside(process)
        switches = {str(k): v for k, v in switches_of(process_id).items()}
        if way:
            return {"way": way, "data": data, "switches": switches}
    known: Fields = {"exit": "not known yet, its process group is still being stopped"}
    with trio.move_on_after(_BURIED_WITHIN):
        known = await core.post_mortems.ending_of(process_id)
    return {"way": "ended", "data": f"the process has ended: {known['exit']}", **known}


async def _events(core: ControllerCore, call: IncomingCall, follow: bool) -> Fields:
    """Tell a snapshot, what is kept, and what comes."""
    with core.event_log.subscribe() as listener:
        entries = core.event_log.entries  # what comes next, the listener has
        # Made only when it is its turn: of many calls that come together, one is.
        async with call.peer.streaming:
            snapshot = [to_fields(record_of(child)) for child in core.everyone()]
            call.progress({"snapshot": {"workers": snapshot}})
            await call.peer.wait_drained()
        for first in range(0, len(entries), _BATCH):
            await call.stream({"entries": entries[first : first + _BATCH]})
        while follow:
            news, missed = await listener.receive()
            await call.stream({"entries": news, "missed": missed})
    return {}


async def _logs(core: ControllerCore, call: IncomingCall, logs: Logs) -> Fields:
    """Tell what was printed lately, and what comes."""
    hub = core.captured_output()
    names = None if logs.names is None else _names(core, logs.names)
    with hub.subscribe(names) as subscription:
        async with call.peer.streaming:
            entries = hub.tail(names, logs.tail)
            await call.peer.wait_drained()
        for first in range(0, len(entries), _BATCH):
            await call.stream({"entries": entries[first : first + _BATCH]})
        if logs.follow:
            async for batch in subscription:
                fields = {"entries": list(batch.entries), "missed": batch.missed}
                await call.stream(fields)
    return {}


def _names(core: ControllerCore, names: Sequence[str]) -> set[str]:
    try:
        return {child.name for child in core.members.choose(names)}
    except NoSuchWorkerError:
        known = {child.name for child in core.everyone()}
        if not known.issuperset(names):
            raise
        return set(names)
