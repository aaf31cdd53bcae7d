"""Make spans of events: one of each process, of each reload and of the shutdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, field

from trio_supervisor.controller.events import (
    Event,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    ShutdownFinished,
    ShutdownStarted,
    StartFailed,
    WorkerReady,
    WorkerUnready,
)
from trio_supervisor.controller.metrics import exit_reason, service_of
from trio_supervisor.controller.telemetry.spans import (
    AttributeValue,
    FinishedSpan,
    SpanId,
    SpanMoment,
)
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.wire.trace_context import TraceContext

_PREFIX: Final = "trio_supervisor."
# A worker that becomes unready again and again adds no more than these.
_MOST_MOMENTS: Final = 100


@define(eq=False)
class _UnendedSpan:
    """The span of something that has not ended."""

    name: str
    id: SpanId
    start: int
    attributes: dict[str, AttributeValue]
    is_sampled: bool
    parent: SpanId | None = None
    previous: SpanId | None = None
    moments: list[SpanMoment] = field(factory=list)
    has_been_ready: bool = False

    def note(self, name: str, now: int, **attributes: AttributeValue) -> None:
        """Add what happened now; empty attributes are left out."""
        if len(self.moments) < _MOST_MOMENTS:
            known = {_PREFIX + key: value for key, value in attributes.items() if value}
            self.moments.append(SpanMoment(name=name, time=now, attributes=known))

    def describe(self, **attributes: AttributeValue) -> None:
        """Add attributes of ours."""
        self.attributes |= {_PREFIX + key: value for key, value in attributes.items()}

    def ended(self, now: int, error: str | None = None) -> Iterator[FinishedSpan]:
        """Return the whole span, if its trace is recorded."""
        if not self.is_sampled:
            return
        yield FinishedSpan(
            name=self.name,
            id=self.id,
            parent=self.parent,
            start=self.start,
            end=now,
            attributes=self.attributes,
            moments=tuple(self.moments),
            previous=self.previous,
            error=error,
        )


@define(eq=False)
class WorkerSpans:
    """The spans of one controller's processes.

    Each process has a trace of its own, from ``started`` to ``exited``, and a link to
    the process of the same worker before it. A span is exported once it has ended: so
    that of the start, a child that ends when the worker is ready, shows which processes
    run.

    Args:
        new_id: Returns that many random bytes, in hexadecimal digits.
    """

    _sampling: TraceSampling
    _new_id: Callable[[int], str]
    _open: dict[int, _UnendedSpan] = field(factory=dict, init=False)
    """By process id."""
    _latest: dict[str, SpanId] = field(factory=dict, init=False)
    """The last process of each worker."""
    _reload: _UnendedSpan | None = field(default=None, init=False)
    _shutdown: _UnendedSpan | None = field(default=None, init=False)

    def on_event(
        self, event: Event, now: int, caller: TraceContext | None = None
    ) -> Iterator[FinishedSpan]:
        """Return the spans that *event* ends, as far as their traces are recorded.

        Args:
            now: [ns since the epoch]
            caller: The trace of the call that brought about the event; None: none.
        """
        match event:
            case ProcessStarted():
                self._begin(event, now)
            case WorkerReady():
                yield from self._ready(event, now)
            case WorkerUnready(process_id=pid, reason=reason):
                if (span := self._open.get(pid)) is not None:
                    span.note("unready", now, reason=reason)
            case ProcessStopping(process_id=pid):
                if (span := self._open.get(pid)) is not None:
                    why = event.problem or event.reason
                    span.note("stopping", now, cause=event.cause, reason=why)
            case ProcessExited():
                yield from self._exited(event, now)
            case StartFailed():
                yield from self._not_started(event, now)
            case ReloadStarted():
                self._reload = self._span("reload", now, caller)
                self._reload.describe(
                    generation=event.generation, plan="; ".join(event.plan)
                )
            case ReloadFinished() | ReloadFailed():
                yield from self._reloaded(event, now, caller)
            case ShutdownStarted(reason=reason):
                self._shutdown = self._span("shutdown", now, caller)
                self._shutdown.describe(reason=reason)
            case ShutdownFinished():
                if self._shutdown is not None:
                    yield from self._shutdown.ended(now)

    def _begin(self, event: ProcessStarted, now: int) -> None:
        span = self._worker_span(event.name, now)
        span.attributes |= {
            "process.pid": event.process_id,
            f"{_PREFIX}incarnation": event.incarnation,
            f"{_PREFIX}generation": event.generation,
        }
        span.note("started", now)
        self._open[event.process_id] = span

    def _ready(self, event: WorkerReady, now: int) -> Iterator[FinishedSpan]:
        if (span := self._open.get(event.process_id)) is None:
            return
        span.note("ready", now)
        if span.has_been_ready:
            return
        span.has_been_ready = True
        if not span.is_sampled:
            return
        yield FinishedSpan(
            name=f"start {service_of(event.name)}",
            id=SpanId(trace=span.id.trace, span=self._new_id(8)),
            parent=span.id,
            start=span.start,
            end=now,
            attributes=dict(span.attributes),
        )

    def _exited(self, event: ProcessExited, now: int) -> Iterator[FinishedSpan]:
        if (span := self._open.pop(event.process_id, None)) is None:
            return
        span.attributes |= {
            f"{_PREFIX}exit.reason": exit_reason(event),
            f"{_PREFIX}next_step": event.next_step,
        }
        if event.returncode is not None:
            span.attributes["process.exit.code"] = event.returncode
        for name in ("last_line", "problem", "post_mortem"):
            if value := getattr(event, name):
                span.attributes[_PREFIX + name] = value
        span.note("exited", now)
        yield from span.ended(now, str(event) if event.is_failure else None)

    def _not_started(self, event: StartFailed, now: int) -> Iterator[FinishedSpan]:
        span = self._worker_span(event.name, now)
        span.attributes |= {
            f"{_PREFIX}exit.reason": "start_failed",
            f"{_PREFIX}next_step": event.next_step,
        }
        yield from span.ended(now, None if event.is_cancelled else str(event))

    def _reloaded(
        self,
        event: ReloadFinished | ReloadFailed,
        now: int,
        caller: TraceContext | None,
    ) -> Iterator[FinishedSpan]:
        span, self._reload = self._reload, None
        if span is None:  # it failed before it began: the import
            span = self._span("reload", now, caller)
            span.describe(generation=event.generation)
        problem = event.problem if isinstance(event, ReloadFailed) else None
        yield from span.ended(now, problem)

    def _worker_span(self, name: str, now: int) -> _UnendedSpan:
        """Return a span of a process of *name*, linked to the one before."""
        service = service_of(name)
        span = self._span(f"worker {service}", now)
        span.describe(service=service, worker=name)
        span.previous = self._latest.get(name)
        self._latest[name] = span.id
        return span

    def _span(
        self, name: str, now: int, caller: TraceContext | None = None
    ) -> _UnendedSpan:
        trace = self._new_id(16) if caller is None else caller.trace_id
        return _UnendedSpan(
            name,
            SpanId(trace=trace, span=self._new_id(8)),
            now,
            {},
            self._sampling.decide(trace, None if caller is None else caller.is_sampled),
            None if caller is None else SpanId(trace=trace, span=caller.span_id),
        )
