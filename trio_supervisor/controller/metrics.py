"""Keep what processes have counted, and collect all metrics of a controller."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Counts
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, groupby
from operator import itemgetter
from typing import Final, Protocol

from attrs import define, field

from trio_supervisor._version import __version__
from trio_supervisor.application import AnyService, Application, Service
from trio_supervisor.application.checks import SUPERVISOR_NAME
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import (
    Event,
    ProcessExited,
    ReloadFailed,
    ReloadFinished,
    StartFailed,
    SupervisorLost,
)
from trio_supervisor.controller.own_families import (
    call_families,
    figure_families,
    own_family,
    states_of,
)
from trio_supervisor.controller.process_counts import ProcessCounts
from trio_supervisor.controller.worker_figures import (
    HasFigures,
    WorkerFigures,
    figures_of,
    loop_lags_of,
)
from trio_supervisor.policy.canary import error_count
from trio_supervisor.policy.client_metrics import Readings, families, kept
from trio_supervisor.policy.client_metrics import added as added_readings
from trio_supervisor.policy.metric_totals import Totals, added
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.policy.metrics_text import (
    Family,
    families_of,
    merged,
    to_lines,
)
from trio_supervisor.policy.supervisor_metrics import SUPERVISOR_METRICS
from trio_supervisor.process.shared_counts import SharedCounts
from trio_supervisor.process.threads import run_in_thread

logger = logging.getLogger(__name__)

_name: Final = itemgetter(0)
_LINES_IN_A_TURN: Final = 200
"""Lines of text that are made while the event loop waits: less than 1 ms."""
_REASONS: Final = (
    *("planned", "finished", "failed", "killed", "out_of_memory", "start_failed"),
)
"""Why processes exit."""


@define(eq=False)
class MetricsBank:
    """What the processes of each service have counted, past and present.

    The event loop begins and ends; threads collect at the same time.
    """

    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    """An exit moves counts from present to kept: a thread sees them in one place."""
    _counting: dict[int, ProcessCounts] = field(factory=dict, init=False)
    """By process id."""
    _kept: dict[str, Totals] = field(factory=dict, init=False)
    """Of processes that have exited, by service."""
    _kept_readings: dict[str, Readings] = field(factory=dict, init=False)
    """The same of metrics of prometheus_client."""
    _exits: Counts[tuple[str, str]] = field(factory=Counts, init=False)
    """By service and reason."""
    _reloads: Counts[str] = field(factory=Counts, init=False)
    _losses: int = field(default=0, init=False)
    """How often the connection to a supervisor was lost."""
    _told_hidden: set[tuple[str, str]] = field(factory=set, init=False)
    began: float = field(factory=time.time, init=False)
    """Since when it counts [s since the epoch]."""

    def begin(
        self, child: Child, service: AnyService | None, shared: SharedCounts
    ) -> None:
        """Count what the process of *child* counts, until `end`, which closes it."""
        metrics = service.metrics if isinstance(service, Service) else None
        if child.name == SUPERVISOR_NAME:
            metrics = SUPERVISOR_METRICS
        assert child.process is not None
        counting = ProcessCounts.of(child, metrics, shared)
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
            if readings := counting.readings(with_gauges=False):
                before = self._kept_readings.get(service, {})
                self._kept_readings[service] = kept(before, readings)
        counting.close()

    def sum_of(self, service: str, metric: str) -> float:
        """Return the sum of all series of *metric* over the workers of *service*.

        Of a counter, also over the processes that have exited.
        """
        totals = self._totals_of(service)
        return sum(value for key, value in totals.items() if key[1] == metric)

    def _present(self, service: str) -> list[ProcessCounts]:
        """Return the processes of *service* that run; the caller holds the lock."""
        counting = self._counting.values()
        return [each for each in counting if each.child.service == service]

    def _totals_of(self, service: str) -> Totals:
        with self._lock:
            present, gone = self._present(service), self._kept.get(service, {})
        return added([gone, *(each.totals() for each in present)])

    def errors_of(self, process_id: int) -> float | None:
        """Return how many errors a process has counted; None: unknown."""
        with self._lock:
            counting = self._counting.get(process_id)
        return None if counting is None else error_count(counting.totals())

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
            if not isinstance(service, Service):
                continue
            name, metrics = service.name, service.metrics or Metrics()
            if per_worker:
                with self._lock:
                    present = self._present(name)
                for each in present:
                    labels = {"service": name, "worker": each.child.name}
                    yield from families_of(metrics, each.totals(), labels)
            else:
                sums = self._totals_of(name)
                yield from families_of(metrics, sums, {"service": name})

    def client_families(
        self, application: Application, *, per_worker: bool
    ) -> Iterator[Family]:
        """Return the metrics that workers count with prometheus_client.

        One that has the name of a declared metric is left out.
        """
        declared = _declared_names(application)
        for name in [s.name for s in application.services if _uses_client(s)]:
            with self._lock:
                present, gone = self._present(name), self._kept_readings.get(name, {})
            # During a reload, two processes may have one name.
            found = [(each.child.name, each.readings()) for each in present]
            where = {"service": name}
            if per_worker:
                made = [
                    families(added_readings({}, pairs), where | {"worker": worker})
                    for worker, pairs in groupby(sorted(found, key=_name), key=_name)
                ]
            else:
                made = [families(added_readings(gone, found), where)]
            for family in chain.from_iterable(made):
                if family.name in declared:
                    self.tell_hidden([(family.name, family.kind)])
                else:
                    yield family

    def tell_hidden(self, hidden: Collection[tuple[str, str]]) -> None:
        """Log, once each, which metrics are not shown."""
        for name, kind in sorted({*hidden} - self._told_hidden):
            logger.warning(
                "metrics: the %s %s is not shown: another metric has its name, or one "
                "of its samples has",
                kind,
                name,
            )
        self._told_hidden |= {*hidden}

    def own_families(
        self,
        source: MetricsSource,
        figures: list[WorkerFigures],
        lags: Mapping[str, float],
    ) -> Iterator[Family]:
        """Return the metrics of the controller and of its workers' processes."""
        gauge, counter = "gauge", "counter"
        version = {"version": __version__}
        yield own_family("info", gauge, "Version.", [(version, 1.0)])
        yield own_family(
            "start_time_seconds", gauge, "When it started.", [({}, self.began)]
        )
        number = float(source.generation.number)
        yield own_family(
            "generation", gauge, "Number of reloads, plus 1.", [({}, number)]
        )
        yield own_family(
            "supervisor_losses",
            counter,
            "Lost connections to a supervisor process.",
            [({}, float(self._losses))],
        )
        results = {"failed": 0, "succeeded": 0} | self._reloads
        reloads = [({"result": k}, float(n)) for k, n in sorted(results.items())]
        yield own_family("reloads", counter, "Reloads by result.", reloads)
        # With zeros, so that an increase from the first exit on is seen.
        zeros = {(s.name, r): 0 for s in source.application.services for r in _REASONS}
        exits = [
            ({"service": service, "reason": reason}, float(count))
            for (service, reason), count in sorted((zeros | self._exits).items())
        ]
        yield own_family("exits", counter, "Exits of processes by reason.", exits)
        late = [({"process": process}, lag) for process, lag in lags.items()]
        yield own_family("event_loop_lag_seconds", gauge, "How late loops were.", late)
        yield from call_families(self._totals_of(SUPERVISOR_NAME))
        yield from states_of(source.application, figures)
        yield from figure_families(figures)


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
    declared = bank.application_families(source.application, per_worker=per_worker)
    client = bank.client_families(source.application, per_worker=per_worker)
    found = [*bank.own_families(source, figures, lags), *declared, *client]
    shown = merged(found)
    bank.tell_hidden(
        {(f.name, f.kind) for f in found} - {(f.name, f.kind) for f in shown}
    )
    return shown


async def metrics_text(
    source: MetricsSource, *, per_worker: bool = False, is_open: bool = False
) -> str:
    """Return all metrics as text; made in a thread, so that the loop is not blocked.

    Args:
        per_worker: Whether application metrics are those of each worker's present
            process, instead of totals of each service.
        is_open: Whether as OpenMetrics.
    """
    figures, lags = await figures_of(source), loop_lags_of(source)

    def make() -> str:
        families = collect(source, figures, lags, per_worker=per_worker)
        lines: list[str] = []
        for line in to_lines(families, is_open=is_open):
            lines.append(line)
            if not len(lines) % _LINES_IN_A_TURN:
                time.sleep(0)  # the event loop's turn
        return "\n".join([*lines, ""])

    return await run_in_thread(make)


def _declared_names(application: Application) -> set[str]:
    """Return the names under which declared metrics are exposed."""
    return {
        name.removesuffix("_total")
        for service in application.services
        if isinstance(service, Service)
        for name in service.metrics or ()
    }


def _uses_client(service: AnyService) -> bool:
    return isinstance(service, Service) and service.prometheus_client


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
