"""Let the load decide the number of workers of a service. Pure."""

from __future__ import annotations

from typing import Any, Final

from attrs import field, frozen

from trio_supervisor.application import checks
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    documented,
    option,
)
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.autoscale import ScalingRule
from trio_supervisor.policy.metrics import Counter, Gauge, Metrics

MAX_COUNT: Final = 10_000
_LEAST: Final = 1e-6


def _positive(value: float, field: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(field, f"expected a number, got {checks.shown(value)}")
    if not _LEAST <= value < float("inf"):
        problem = f"expected {_LEAST:g} or more, got {checks.shown(value)}"
        raise SpecError(field, problem)
    return float(value)


def _share(value: float, field: str = "") -> float:
    if _positive(value, field) > 1:
        raise SpecError(field, f"expected at most 1, got {checks.shown(value)}")
    return value


@documented
@frozen(kw_only=True, slots=False, field_transformer=checked_later)
class Autoscale(Checked):
    """How many workers a service has for which load.

    Example::

        Service(
            "web",
            serve,
            count=Autoscale(
                minimum=2, maximum=16, metric="requests_active", per_worker=8
            ),
            metrics=Metrics(requests_active=Gauge()),
        )

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    minimum: int = field(
        default=1,
        converter=checks.integer,
        metadata=option("Least number of workers.", least=1, most=MAX_COUNT),
    )
    maximum: int = field(
        converter=checks.integer,
        metadata=option("Greatest number of workers.", least=1, most=MAX_COUNT),
    )
    metric: str = field(
        metadata=option(
            "Metric of the service that measures its load, summed over its workers: a "
            "gauge, or a counter, whose increase per second counts."
        ),
    )
    per_worker: float = field(
        converter=_positive,
        metadata=option("Load that one worker can bear, in the unit of the metric."),
    )
    target: float = field(
        default=0.7,
        converter=_share,
        metadata=option(
            "Wanted use of each worker, as a fraction of `per_worker`: workers are "
            "added above it and stopped below it, but for a tolerance of a tenth."
        ),
    )
    interval: float = field(
        default=5.0,
        converter=checks.seconds,
        metadata=option("Time between two looks at the load.", unit="s", least=0.1),
    )
    scale_down_after: float = field(
        default=120.0,
        converter=checks.seconds_or_zero,
        metadata=option(
            "How long fewer workers must have been enough before some are stopped.",
            unit="s",
            least=0,
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and that they fit together."""
        super().__attrs_post_init__()
        if not checks.is_text(self.metric):
            problem = f"expected the name of a metric, got {checks.shown(self.metric)}"
            raise SpecError("metric", problem)
        if self.maximum < self.minimum:
            problem = f"expected at least minimum ({self.minimum}), got {self.maximum}"
            raise SpecError("maximum", problem)

    def __str__(self) -> str:
        return (
            f"{self.minimum} to {self.maximum} workers, {self.target:.0%} of "
            f"{self.per_worker:g} {self.metric} each, asked every "
            f"{self.interval:g} s, fewer after {self.scale_down_after:g} s"
        )

    @property
    def rule(self) -> ScalingRule:
        """The rule that `policy.autoscale` follows."""
        return ScalingRule(
            minimum=self.minimum,
            maximum=self.maximum,
            target=self.target,
            per_worker=self.per_worker,
            scale_down_after=self.scale_down_after,
        )

    def check_metric(self, metrics: Metrics | None) -> None:
        """Check that the service has the metric.

        Raises:
            SpecError: it has not, or it is a histogram.
        """
        found = {} if metrics is None else {name: metrics[name] for name in metrics}
        if self.metric not in found:
            problem = f"the service has no metric {self.metric!r}"
            raise SpecError("count.metric", problem + did_you_mean(self.metric, found))
        if not isinstance(found[self.metric], Gauge | Counter):
            raise SpecError("count.metric", "expected a gauge or a counter")


def worker_count(value: int | Autoscale, field: str = "", **limits: Any) -> Any:
    """Return *value* if it is a whole number within *limits*, or an `Autoscale`."""
    if isinstance(value, Autoscale):
        return value
    return checks.integer(value, field, **limits)
