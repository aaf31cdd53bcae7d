"""Keep what processes have counted, and collect all metrics of a controller."""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from attrs import define, field, frozen

from trio_supervisor._version import __version__
from trio_supervisor.application import AnyService, Application, Service
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import (
    Event,
    ProcessExited,
    ReloadFailed,
    ReloadFinished,
    StartFailed,
    SupervisorLost,
)
from trio_supervisor.controller.worker_figures import (
    HasFigures,
    WorkerFigures,
    figures_of,
    loop_lags_of,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.metric_totals import ProcessNumbers, Totals, added
from trio_supervisor.policy.metrics_text import (
    Family,
    Sample,
    families_of,
    merged,
    to_text,
)
from trio_supervisor.process.shared_numbers import SharedNumbers
from trio_supervisor.process.threads import run_in_thread

_PREFIX: Final = "trio_supervisor_"
_REASONS: Final = (
    *("planned", "finished", "failed", "killed", "out_of_memory", "start_failed"),
)
"""Why processes exit."""


@frozen
class _Counting:
    """One process that counts."""

    child: Child
    shared: SharedNumbers
    numbers: ProcessNumbers
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def totals(self, *, with_gauges: bool = True) -> Totals:
        """Return what it has counted until now, or until `close`."""
        with self._lock:
            with suppress(OSError):
                self.numbers.update(self.shared.read())
            return self.numbers.totals(with_gauges=with_gauges)

    def close(self) -> None:
        """Close the memory, but not while another thread reads it."""
        with self._lock:
            self.shared.close()


@define(eq=False)
class MetricsBank:
    """What the processes of each service have counted, past and present.

    The event loop begins and ends; threads collect at the same time.
    """

    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    """An exit moves counts from present to kept: a thread sees them in one place."""
    _counting: dict[int, _Counting] = field(factory=dict, init=False)
    """By process id."""
    _kept: dict[str, Totals] = field(factory=dict, init=False)
    """Of processes that have exited, by service."""
    _exits: Counts[tuple[str, str]] = field(factory=Counts, init=False)
    """By service and reason."""
    _reloads: Counts[str] = field(factory=Counts, init=False)
    _losses: int = field(default=0, init=False)
    """How often the connection to a supervisor was lost."""
    began: float = field(factory=time.time, init=False)
    """Since when it counts [s since the epoch]."""

    def begin(
        self, child: Child, service: AnyService | None, shared: SharedNumbers
    ) -> None:
        """Count what the process of *child* counts, until `end`, which closes it."""
        metrics = service.metrics if isinstance(service, Service) else None
        if metrics is None:
            shared.close()
            return
        assert child.process is not None
        numbers = ProcessNumbers(metrics)
        counting = _Counting(child, shared, numbers)
        with self._lock:
            self._counting[child.process.pid] = counting

    def end(self, process_id: int) -> None:
        """Keep what an exited process has counted, but for its gauges."""
        with self._lock:
            if (counting := self._counting.pop(process_id, None)) is None:
                return
            totals = counting.totals(with_gauges=False)
            service = counting.child.service
            self._kept[service] = added([self._kept.get(service, {}), totals])
        counting.close()

    def sum_of(self, service: str, metric: str) -> float:
        """Return the sum of all series of *metric* over the workers of *service*.

        Of a counter, also over the processes that have exited.
        """
        with self._lock:
            counting = [
                c for c in self._counting.values() if c.child.service == service
            ]
            kept = self._kept.get(service, {})
        totals = added([kept, *(each.totals() for each in counting)])
        return sum(value for key, value in totals.items() if key[1] == metric)

    def on_event(self, event: Event) -> None:
        """Count exits, reloads and losses of the supervisor."""
        match event:
            case ProcessExited(name=name):
                self._exits[service_of(name), exit_reason(event)] += 1
            case StartFailed(name=name):
                self._exits[service_of(name), "start_failed"] += 1
            case ReloadFinished():
                self._reloads["succeeded"] += 1
            case ReloadFailed():
                self._reloads["failed"] += 1
            case SupervisorLost():
                self._losses += 1

    def application_families(
        self, application: Application, *, per_worker: bool
    ) -> Iterator[Family]:
        """Return the metrics that the services declare.

        Args:
            per_worker: Whether of each worker's present process, instead of in total.
        """
        for service in application.services:
            if not isinstance(service, Service) or service.metrics is None:
                continue
            name, metrics = service.name, service.metrics
            with self._lock:
                counting = list(self._counting.values())
                kept = self._kept.get(name, {})
            present = [each for each in counting if each.child.service == name]
            if per_worker:
                for each in present:
                    labels = {"service": name, "worker": each.child.name}
                    yield from families_of(metrics, each.totals(), labels)
            else:
                sums = added([kept, *(each.totals() for each in present)])
                yield from families_of(metrics, sums, {"service": name})

    def own_families(
        self,
        source: MetricsSource,
        figures: list[WorkerFigures],
        lags: Mapping[str, float],
    ) -> Iterator[Family]:
        """Return the metrics of the controller and of its workers' processes."""
        gauge, counter = "gauge", "counter"
        version = {"version": __version__}
        yield _family("info", gauge, "Version.", [(version, 1.0)])
        yield _family(
            "start_time_seconds", gauge, "When it started.", [({}, self.began)]
        )
        number = float(source.generation.number)
        yield _family("generation", gauge, "Number of reloads, plus 1.", [({}, number)])
        yield _family(
            "supervisor_losses",
            counter,
            "Lost connections to a supervisor process.",
            [({}, float(self._losses))],
        )
        results = {"failed": 0, "succeeded": 0} | self._reloads
        reloads = [({"result": k}, float(n)) for k, n in sorted(results.items())]
        yield _family("reloads", counter, "Reloads by result.", reloads)
        # With zeros, so that an increase from the first exit on is seen.
        zeros = {(s.name, r): 0 for s in source.application.services for r in _REASONS}
        exits = [
            ({"service": service, "reason": reason}, float(count))
            for (service, reason), count in sorted((zeros | self._exits).items())
        ]
        yield _family("exits", counter, "Exits of processes by reason.", exits)
        late = [({"process": process}, lag) for process, lag in lags.items()]
        yield _family("event_loop_lag_seconds", gauge, "How late loops were.", late)
        yield from _states(source.application, figures)
        yield from _figures(figures)


class MetricsSource(HasFigures, Protocol):
    """The controller, as far as its metrics are concerned."""

    metrics: MetricsBank

    @property
    def application(self) -> Application: ...


def collect(
    source: MetricsSource,
    figures: list[WorkerFigures],
    lags: Mapping[str, float],
    *,
    per_worker: bool,
) -> list[Family]:
    """Return all metrics; takes milliseconds for hundreds of workers."""
    bank = source.metrics
    application = bank.application_families(source.application, per_worker=per_worker)
    return merged([*bank.own_families(source, figures, lags), *application])


async def metrics_text(
    source: MetricsSource, *, per_worker: bool = False, is_open: bool = False
) -> str:
    """Return all metrics as text; made in a thread, so that the loop is not blocked.

    Args:
        per_worker: Whether application metrics are those of each worker's present
            process, instead of totals of each service.
        is_open: Whether as OpenMetrics.
    """
    figures, lags = figures_of(source), loop_lags_of(source)
    families = partial(collect, source, figures, lags, per_worker=per_worker)
    return await run_in_thread(lambda: to_text(families(), is_open=is_open))


def _states(
    application: Application, figures: Iterable[WorkerFigures]
) -> Iterator[Family]:
    found: Counts[tuple[str, str]] = Counts()
    for service in application.services:
        for state in State:
            found[service.name, state.value] = 0
    for worker in figures:
        found[worker.service, worker.state.value] += 1
    samples = [
        ({"service": service, "state": state}, float(count))
        for (service, state), count in found.items()
    ]
    yield _family("workers", "gauge", "Workers by state.", samples)


def _figures(figures: list[WorkerFigures]) -> Iterator[Family]:
    labels = [{"service": each.service, "worker": each.name} for each in figures]
    pairs = list(zip(labels, figures, strict=True))
    ready = [(where, float(each.state is State.READY)) for where, each in pairs]
    yield _family("worker_ready", "gauge", "Whether it is ready.", ready)
    restarts = [(where, float(each.restarts)) for where, each in pairs]
    yield _family(
        "worker_restarts", "counter", "Restarts in this generation.", restarts
    )
    yield from _times(pairs)
    used = [(where, use) for where, each in pairs if (use := each.usage()) is not None]
    yield _family(
        "worker_cpu_seconds",
        "counter",
        "Processor time of its present process.",
        [(where, use.cpu_time) for where, use in used],
    )
    yield _family(
        "worker_resident_memory_bytes",
        "gauge",
        "Resident memory of its process.",
        [(where, float(use.rss)) for where, use in used],
    )
    yield _family(
        "worker_threads",
        "gauge",
        "Threads of its process.",
        [(where, float(use.threads)) for where, use in used],
    )


_TIMES: Final[tuple[tuple[str, str, Callable[[WorkerFigures], object]], ...]] = (
    (
        "worker_start_time_seconds",
        "When its process was started.",
        lambda each: each.start_time,
    ),
    (
        "worker_last_exit_code",
        "Exit code of its last process; -n: killed by signal n.",
        lambda each: each.last_exit,
    ),
    (
        "worker_event_loop_lag_seconds",
        "How late its event loop is, or was with its last heartbeat.",
        lambda each: each.loop_lag,
    ),
    (
        "schedule_last_run_timestamp_seconds",
        "When its last scheduled run that has ended began.",
        lambda each: getattr(each.schedule, "last_run_at", None),
    ),
    (
        "schedule_last_run_duration_seconds",
        "How long that run took.",
        lambda each: getattr(each.schedule, "last_run_seconds", None),
    ),
    (
        "schedule_next_run_timestamp_seconds",
        "When its next scheduled run is due.",
        lambda each: getattr(each.schedule, "next_run_at", None),
    ),
)
"""Name, help and value; a worker without a value has no sample."""


def _times(pairs: list[tuple[dict[str, str], WorkerFigures]]) -> Iterator[Family]:
    for name, text, value_of in _TIMES:
        found = [(where, value_of(each)) for where, each in pairs]
        samples = [
            (where, float(value))
            for where, value in found
            if isinstance(value, int | float)
        ]
        yield _family(name, "gauge", text, samples)


def _family(
    name: str, kind: str, text: str, values: list[tuple[dict[str, str], float]]
) -> Family:
    base = _PREFIX + name
    full = f"{base}_total" if kind == "counter" else base
    samples = tuple(Sample(full, labels, value) for labels, value in values)
    return Family(base, kind, text, samples)


def service_of(name: str) -> str:
    """Return the service of the worker *name*; *name* itself, if it has none."""
    return name.rpartition(".")[0] or name


def exit_reason(event: ProcessExited) -> str:
    """Return why a process exited, as one of the labels of the metrics."""
    if event.is_planned:
        return "planned"
    if not event.is_failure:
        return "finished"
    if "out of memory" in event.kill_reason:
        return "out_of_memory"
    return "killed" if (event.returncode or 0) < 0 else "failed"
