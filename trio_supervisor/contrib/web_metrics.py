"""Metrics of web services: requests in flight, their number and their duration."""

from __future__ import annotations

import time
from typing import Any, Final

from attrs import define, field

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import OTHER, Counter, Gauge, Histogram, Metrics

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")

WEB_METRICS: Final = Metrics(
    http_requests_total=Counter(
        "Requests answered, by method and class of status.",
        labels={"method": _METHODS, "status": _CLASSES},
    ),
    http_requests_in_flight=Gauge("Requests that are not completely answered."),
    http_request_duration_seconds=Histogram(
        "Time from a request to the end of its answer."
    ),
)
"""What every web service counts."""


def with_web_metrics(own: Metrics | None) -> Metrics:
    """Return the metrics *own* of a service, and those of every web service.

    Raises:
        SpecError: *own* has one of their names.
    """
    declared = {} if own is None else {name: own[name] for name in own}
    if taken := [name for name in declared if name in set(WEB_METRICS)]:
        raise SpecError(f"metrics.{taken[0]}", "is declared by every web service")
    return Metrics(**declared, **{name: WEB_METRICS[name] for name in WEB_METRICS})


class RequestCounts:
    """Counts the requests of one worker."""

    def __init__(self, metrics: Any) -> None:
        self._in_flight = metrics.http_requests_in_flight
        self._duration = metrics.http_request_duration_seconds
        self._total = metrics.http_requests_total

    def begin(self, method: str) -> CountedRequest:
        """Count a request that has arrived."""
        self._in_flight.inc()
        return CountedRequest(self, method)

    def _end(self, request: CountedRequest, took: float) -> None:
        status = OTHER if request.status is None else f"{request.status // 100}xx"
        self._in_flight.dec()
        self._duration.observe(max(0.0, took))
        self._total.labels(method=request.method, status=status).inc()


@define(eq=False)
class CountedRequest:
    """One request; made by `RequestCounts.begin`."""

    _counts: RequestCounts
    method: str
    status: int | None = field(default=None, init=False)
    """Status of its answer; None: it has none yet."""
    _began: float = field(factory=time.perf_counter, init=False)
    _is_over: bool = field(default=False, init=False)

    def end(self) -> None:
        """Count the answer as complete; only the first call counts."""
        if not self._is_over:
            self._is_over = True
            self._counts._end(self, time.perf_counter() - self._began)
