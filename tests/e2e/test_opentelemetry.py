"""Test what a receiver of OTLP gets from a real application, and what fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext

from tests.kits.otlp import OtlpReceiver, attributes, receiving
from tests.kits.serving import Serving, open_serving, run_cli, short_directory
from trio_supervisor import open_client

SERVICE = """
from opentelemetry import trace
from trio_supervisor import Application, Counter, Gauge, Histogram, Metrics, Service

def where():
    found = trace.get_current_span().get_span_context()
    return [f"{found.trace_id:032x}", f"{found.span_id:016x}"]

async def serve(worker):
    worker.handle("where", where)
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
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_BSP_SCHEDULE_DELAY": "100"}
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
# They change between a scrape and an export.
VOLATILE = re.compile(
    r"_(cpu_seconds|resident_memory|event_loop_lag|threads|start_time)"
    # Each scrape is a call and a connection itself.
    r'|operation="metrics"|connections\{kind="client"'
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

        scraped(serving)  # is a call that is counted, too
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


def test_processes_and_calls_are_spans(receiver: OtlpReceiver) -> None:
    words = ["--otlp", receiver.url]
    with open_serving(SERVICE, words=words, environment=OFTEN) as serving:
        receiver.span("start web", worker="web.1")
        serving.kill("web.0")
        first = receiver.span("worker web", worker="web.0")
        assert [event.name for event in first.events] == ["started", "ready", "exited"]
        assert "killed by SIGKILL" in first.status.message
        serving.wait_worker("web.0", incarnation=2, state="ready")

        serving.kill("supervisor")  # the next one records calls as well
        serving.when_ready()
        with serving.peer() as peer:
            line = '{"id":2,"do":"forward","name":"web.0","operation":{"do":"where"},'
            answer = peer.ask(f'{line}"traceparent":"{TRACEPARENT}"}}')
            refused = peer.ask(
                '{"id":4,"do":"forward","name":"web.0","traceparent":"malformed",'
                '"operation":{"do":"where","traceparent":"x"}}'
            )
        assert refused["error"]["class"] == "BadRequest"
        forward = receiver.span("forward")
        assert (forward.trace_id.hex(), forward.parent_span_id.hex()) == (TRACE, CALLER)
        assert answer["data"] == [TRACE, forward.span_id.hex()]

        assert serving.cli("reload", TRACEPARENT=TRACEPARENT).returncode == 0
        call = receiver.span("reload", cancelled=None, generation=None)
        reload = receiver.span("reload", generation=2)
        assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, CALLER)
        assert reload.parent_span_id == call.span_id
        for event in ("reloading", "reloaded"):
            logged = serving.wait_event(event=event)
            assert logged["trace_id"] == TRACE
            assert logged["span_id"] == call.span_id.hex()
        assert "trace_id" not in serving.wait_event(event="all_ready")

        ours = trio.run(ping_in_a_span, str(serving.socket))
        ping = receiver.span("ping")
        assert ping.trace_id.hex() == format(ours.trace_id, "032x")
        assert ping.parent_span_id.hex() == format(ours.span_id, "016x")
        assert serving.terminate() == 0
    second = receiver.span("worker web", worker="web.0", incarnation=2)
    assert [link.span_id for link in second.links] == [first.span_id]
    receiver.span("shutdown", reason="received SIGTERM")


async def ping_in_a_span(path: str) -> SpanContext:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    with tracer.start_as_current_span("work") as span:
        async with open_client(path) as client:
            await client.ping()
    return span.get_span_context()


def test_absent_receiver_is_logged_once_and_found_again(
    receiver: OtlpReceiver,
) -> None:
    receiver.status = 503
    words = ["--otlp", receiver.url]
    with open_serving(SERVICE, words=words, environment=OFTEN) as serving:
        serving.wait_line("metrics are not exported to http://127.0.0.1")
        receiver.status = 200
        line = serving.wait_line("metrics are not exported")
        assert "Service Unavailable; retrying (logged once)" in line
        serving.wait_line("metrics are exported to http://127.0.0.1")
        serving.wait_line("spans are exported to http://127.0.0.1")
        receiver.span("start web", worker="web.0")
        assert serving.text.count("metrics are not exported") == 1
        assert serving.text.count("spans are not exported") == 1
        assert "opentelemetry" not in serving.text


def test_receiver_that_hangs_delays_nothing(receiver: OtlpReceiver) -> None:
    """What waited for it would do so for longer than this test may take."""
    receiver.hangs = True
    words, patient = ["--otlp", receiver.url], {"OTEL_EXPORTER_OTLP_TIMEOUT": "1000"}
    environment = {**OFTEN, **patient}
    with open_serving(SERVICE, words=words, environment=environment) as serving:
        receiver.wait(lambda: receiver.refused, "request")
        serving.kill("web.0")
        serving.wait_worker("web.0", incarnation=2, state="ready")
        assert serving.cli("metrics").returncode == 0
        assert serving.terminate() == 0
    for signal in ("metrics", "spans"):
        line = serving.wait_line(f"{signal} are not exported")
        assert "no answer within 2 s" in line


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
