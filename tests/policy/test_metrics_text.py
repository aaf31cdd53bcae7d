"""Metrics as Prometheus scrapes them."""

from __future__ import annotations

from trio_supervisor.policy.metric_totals import ProcessNumbers, Totals
from trio_supervisor.policy.metrics import Counter, Gauge, Histogram, Metrics
from trio_supervisor.policy.metrics_text import families_of, merged, to_lines

METRICS = Metrics(
    requests_total=Counter('Says "hello\\".\n', labels={"path": ["/", 'a"\\\n']}),
    active=Gauge(),
    seconds=Histogram(buckets=[0.5, 2]),
)


def totals() -> Totals:
    process = ProcessNumbers(METRICS)
    process.update([1.0, 2.0, 3.0, -1.5, 1.0, 2.0, 4.0, 1e300])
    return process.totals()


def test_prometheus_text() -> None:
    families = families_of(METRICS, totals(), {"service": "web"})
    text = "\n".join([*to_lines(families), ""])
    assert text == (
        '# HELP requests_total Says "hello\\\\".\\n\n'
        "# TYPE requests_total counter\n"
        'requests_total{service="web",path="/"} 1\n'
        'requests_total{service="web",path="a\\"\\\\\\n"} 2\n'
        'requests_total{service="web",path="other"} 3\n'
        "# HELP active Active.\n"
        "# TYPE active gauge\n"
        'active{service="web"} -1.5\n'
        "# HELP seconds Seconds.\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{service="web",le="0.5"} 1\n'
        'seconds_bucket{service="web",le="2.0"} 3\n'
        'seconds_bucket{service="web",le="+Inf"} 7\n'
        'seconds_sum{service="web"} 1e+300\n'
        'seconds_count{service="web"} 7\n'
    )


def test_openmetrics() -> None:
    families = list(families_of(METRICS, totals(), {"service": "web"}))
    lines = list(to_lines(families, is_open=True))
    assert lines[:2] == [
        '# HELP requests Says \\"hello\\\\\\".\\n',
        "# TYPE requests counter",
    ]
    assert lines[-1] == "# EOF"


def test_families_of_one_name_are_one() -> None:
    web = families_of(Metrics(n=Gauge("Number.")), {}, {"service": "web"})
    api = families_of(Metrics(n=Gauge()), {}, {"service": "api"})
    other = families_of(Metrics(n=Counter()), {}, {"service": "other"})
    [family] = merged([*web, *api, *other])
    assert family.help == "Number."
    assert [sample.labels["service"] for sample in family.samples] == ["web", "api"]


def test_metrics_whose_samples_have_one_name_are_not_both_shown() -> None:
    """Prometheus would refuse all metrics."""
    web = families_of(Metrics(lat=Histogram(), n_total=Counter()), {}, {})
    api = families_of(Metrics(lat_count=Gauge(), n=Gauge()), {}, {})
    assert [(f.name, f.kind) for f in merged([*web, *api])] == [
        ("lat", "histogram"),
        ("n", "counter"),
    ]


def test_buckets_of_before_a_reload_count_in_the_next_greater_one() -> None:
    before: Totals = {
        ("histogram", "seconds", (), "1.0"): 5.0,
        ("histogram", "seconds", (), "+Inf"): 2.0,
        ("histogram", "seconds", (), "sum"): 9.0,
    }
    [*_, family] = families_of(METRICS, before, {})
    assert [sample.value for sample in family.samples] == [0.0, 5.0, 7.0, 9.0, 7.0]
