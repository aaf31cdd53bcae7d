"""Metrics of the controller itself and of its workers' processes. Pure."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from trio_supervisor.application import Application
from trio_supervisor.controller.worker_figures import WorkerFigures
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.metric_totals import Totals
from trio_supervisor.policy.metrics import OTHER
from trio_supervisor.policy.metrics_text import Family, Sample, families_of
from trio_supervisor.policy.supervisor_metrics import SUPERVISOR_METRICS

_PREFIX: Final = "trio_supervisor_"


def states_of(
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
    yield own_family("workers", "gauge", "Workers by state.", samples)


def figure_families(figures: list[WorkerFigures]) -> Iterator[Family]:
    labels = [{"service": each.service, "worker": each.name} for each in figures]
    pairs = list(zip(labels, figures, strict=True))
    ready = [(where, float(each.state is State.READY)) for where, each in pairs]
    yield own_family("worker_ready", "gauge", "Whether it is ready.", ready)
    restarts = [(where, float(each.restarts)) for where, each in pairs]
    yield own_family(
        "worker_restarts", "counter", "Restarts in this generation.", restarts
    )
    yield from _times(pairs)
    used = [(where, use) for where, each in pairs if (use := each.usage()) is not None]
    yield own_family(
        "worker_cpu_seconds",
        "counter",
        "Processor time of its present process.",
        [(where, use.cpu_time) for where, use in used],
    )
    yield own_family(
        "worker_resident_memory_bytes",
        "gauge",
        "Resident memory of its process.",
        [(where, float(use.rss)) for where, use in used],
    )
    yield own_family(
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
        yield own_family(name, "gauge", text, samples)


def own_family(
    name: str, kind: str, text: str, values: list[tuple[dict[str, str], float]]
) -> Family:
    base = _PREFIX + name
    full = f"{base}_total" if kind == "counter" else base
    samples = tuple(Sample(full, labels, value) for labels, value in values)
    return Family(base, kind, text, samples)


def call_families(totals: Totals) -> Iterator[Family]:
    """Return what the supervisor counts of calls, without those never made."""
    for family in families_of(SUPERVISOR_METRICS, totals, {}):
        made = {
            sample.labels.get("operation")
            for sample in family.samples
            if sample.value > 0 or family.kind == "gauge"
        }
        samples = [
            sample
            for sample in family.samples
            if sample.labels.get("operation") in made
            and OTHER not in (sample.labels.get("result"), sample.labels.get("kind"))
        ]
        yield Family(family.name, family.kind, family.help, tuple(samples))
