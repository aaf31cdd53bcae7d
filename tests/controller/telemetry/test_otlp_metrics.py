"""Test that metrics become those of OpenTelemetry, value by value."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import (
    encode_metrics,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Metric,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tests.kits.otlp import attributes
from trio_supervisor import Counter, Gauge, Histogram, Metrics
from trio_supervisor.controller.telemetry.otlp_metrics import (
    OtlpMetrics,
)
from trio_supervisor.policy.metric_totals import ProcessNumbers
from trio_supervisor.policy.metrics_text import (
    Family,
    Sample,
    families_of,
)

METRICS = Metrics(
    requests_total=Counter("Requests.", labels={"method": ["GET"]}),
    active=Gauge(),
    seconds=Histogram(buckets=[1, 5]),
)
BEGAN = 100


def make() -> OtlpMetrics:
    return OtlpMetrics(Resource({}), InstrumentationScope("tests"), BEGAN)


def encoded(source: OtlpMetrics, families: list[Family], now: int) -> list[Metric]:
    [resource] = encode_metrics(source.data(families, now)).resource_metrics
    [scope] = resource.scope_metrics
    return list(scope.metrics)


def test_counter_gauge_and_histogram() -> None:
    numbers = ProcessNumbers(METRICS)
    # GET, other; active; up to 1, up to 5, above, and the sum.
    numbers.update([3, 1, 2, 4, 0, 2, 25.5])
    families = list(families_of(METRICS, numbers.totals(), {"service": "web"}))
    requests, active, seconds = encoded(make(), families, 900)

    assert (requests.name, requests.description) == ("requests_total", "Requests.")
    assert requests.sum.is_monotonic
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert requests.sum.aggregation_temporality == cumulative
    assert [
        (attributes(point.attributes), point.as_double)
        for point in requests.sum.data_points
    ] == [
        ({"service": "web", "method": "GET"}, 3),
        ({"service": "web", "method": "other"}, 1),
    ]
    point = requests.sum.data_points[0]
    assert (point.start_time_unix_nano, point.time_unix_nano) == (BEGAN, 900)

    assert [point.as_double for point in active.gauge.data_points] == [2]

    [bucketed] = seconds.histogram.data_points
    assert seconds.histogram.aggregation_temporality == cumulative
    assert list(bucketed.explicit_bounds) == [1, 5]
    assert list(bucketed.bucket_counts) == [4, 0, 2]
    assert (bucketed.count, bucketed.sum) == (6, 25.5)
    assert not bucketed.HasField("min")
    assert not bucketed.HasField("max")
    assert attributes(bucketed.attributes) == {"service": "web"}
    assert bucketed.start_time_unix_nano == BEGAN


def test_counter_that_fell_begins_again() -> None:
    """As of a restarted process: else the backend would see a negative increase."""

    def family(value: float) -> Family:
        sample = Sample("cpu_total", {"worker": "web.0"}, value)
        return Family("cpu", "counter", "", (sample,))

    source = make()
    starts = []
    for now, value in [(200, 7.0), (300, 8.0), (400, 0.5), (500, 0.75)]:
        [metric] = encoded(source, [family(value)], now)
        starts.append(metric.sum.data_points[0].start_time_unix_nano)
    assert starts == [BEGAN, BEGAN, 300, 300]


def test_metric_without_samples_is_left_out() -> None:
    assert encoded(make(), [Family("a", "gauge", "", ())], 200) == []
