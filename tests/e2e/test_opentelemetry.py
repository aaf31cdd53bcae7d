"""Test what a receiver of OTLP gets from a real application, and what fails."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.kits.otlp import OtlpReceiver, attributes, receiving
from tests.kits.serving import Serving, open_serving, run_cli, short_directory

SERVICE = """
from trio_supervisor import Application, Counter, Gauge, Histogram, Metrics, Service

async def serve(worker):
    worker.metrics.starts_total.inc()
    worker.metrics.seconds.labels(kind="slow").observe(3)
    with worker.metrics.active.track():
        await worker.ready()
        await worker.stopping.wait()

metrics = Metrics(
    starts_total=Counter("Starts."),
    active=Gauge(),
    seconds=Histogram(labels={"kind": ["slow"]}, buckets=[1, 5]),
)
application = Application(
    [Service("web", serve, count=2, metrics=metrics)], name="shop"
)
"""
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "100"}
# They change between a scrape and an export.
VOLATILE = re.compile(
    r"_(cpu_seconds|resident_memory|event_loop_lag|threads|start_time)"
)


def numbers(metrics: dict[str, Metric]) -> dict[str, float]:
    """Return the samples as the text format names them, but for buckets."""
    found = {}
    for name, metric in metrics.items():
        for point in (*metric.sum.data_points, *metric.gauge.data_points):
            found[name + labels(point.attributes)] = point.as_double
        for bucketed in metric.histogram.data_points:
            where = labels(bucketed.attributes)
            found[f"{name}_count{where}"] = bucketed.count
            found[f"{name}_sum{where}"] = bucketed.sum
    return found


def labels(pairs: object) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in attributes(pairs).items())
    return f"{{{inner}}}"


def scraped(serving: Serving) -> dict[str, float]:
    text = serving.cli("metrics").stdout
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [line.rpartition(" ") for line in lines if "_bucket{" not in line]
    return {name: float(value) for name, _, value in pairs}


def stable(samples: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in samples.items() if not VOLATILE.search(k)}


def loads_protobuf(serving: Serving) -> bool:
    """Return whether the controller has loaded what the exporters need."""
    maps = Path(f"/proc/{serving.process.pid}/maps").read_text(encoding="utf-8")
    assert "orjson" in maps  # extension modules are seen here
    return "google/_upb" in maps


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with receiving() as receiver:
        yield receiver


def test_receiver_gets_what_is_scraped_over_kills(receiver: OtlpReceiver) -> None:
    environment = {
        **OFTEN,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    words = ["--otlp", "env"]
    with open_serving(SERVICE, words=words, environment=environment) as serving:

        def latest() -> dict[str, float]:
            since = len(receiver.metrics)
            # The one after the next has begun when this was called.
            receiver.wait(lambda: len(receiver.metrics) > since + 1, "metrics")
            return numbers(receiver.latest())

        expected = scraped(serving)
        found = latest()
        assert loads_protobuf(serving)
        assert found.keys() == expected.keys()
        assert stable(found) == stable(expected)
        assert found['starts_total{service="web"}'] == 2
        assert found['seconds_count{service="web",kind="slow"}'] == 2
        resource = receiver.resource()
        assert resource["service.name"] == "shop"
        assert resource["deployment.environment.name"] == "test"
        assert resource["process.pid"] == serving.process.pid

        serving.kill("supervisor")
        serving.when_ready()
        serving.kill("web.0")
        serving.wait_worker("web.0", incarnation=2, state="ready")
        after = latest()
        assert after['starts_total{service="web"}'] == 3
        assert after['trio_supervisor_exits_total{service="web",reason="killed"}'] == 1
        assert after["trio_supervisor_supervisor_losses_total{}"] == 1

        assert serving.terminate() == 0
        last = numbers(receiver.latest())
        planned = 'trio_supervisor_exits_total{service="web",reason="planned"}'
        assert (after[planned], last[planned]) == (0, 2)


def test_absent_receiver_is_logged_once_and_found_again(
    receiver: OtlpReceiver,
) -> None:
    receiver.status = 503
    words = ["--otlp", receiver.url]
    with open_serving(SERVICE, words=words, environment=OFTEN) as serving:
        serving.wait_line("metrics are not exported to http://127.0.0.1")
        receiver.status = 200
        line = serving.wait_line("exported to http://127.0.0.1")
        assert "Service Unavailable; retrying (logged once)" in line
        serving.wait_line("again, after 1 failures")
        assert serving.text.count("not exported") == 1
        assert "opentelemetry" not in serving.text


def test_receiver_that_hangs_delays_nothing(receiver: OtlpReceiver) -> None:
    receiver.hangs = True
    words = ["--otlp", receiver.url]
    with open_serving(SERVICE, words=words, environment=OFTEN) as serving:
        receiver.wait(lambda: receiver.refused, "request")
        began = time.monotonic()
        serving.kill("web.0")
        serving.wait_worker("web.0", incarnation=2, state="ready")
        assert serving.cli("metrics").returncode == 0
        stopping = time.monotonic()
        assert serving.terminate() == 0
        ended = time.monotonic()
        serving.wait_nothing_left()
    assert stopping - began < 20
    assert ended - stopping < 20
    assert "no answer within 2 s" in serving.text


def test_mistake_is_told_before_anything_starts() -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text("raise SystemExit('imported')\n")
        done = run_cli("serve", "service.py", "--otlp", "gone", directory=directory)
        assert done.returncode == 10
        assert "otlp: expected http://HOST:PORT" in done.stderr
        assert "imported" not in done.stderr


def test_without_the_option_nothing_of_it_is_loaded() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with open_serving(SERVICE, environment=environment) as serving:
        assert not loads_protobuf(serving)
