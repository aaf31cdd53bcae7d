"""Metrics of real workers, over kills and a reload."""

from __future__ import annotations

import http.client
import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving

COUNTING = """
from trio_supervisor import Application, Counter, Gauge, Histogram, Metrics, Service

async def serve(worker):
    worker.metrics.starts_total.inc()
    worker.metrics.seconds.labels(kind="slow").observe(3)
    with worker.metrics.active.track():
        await worker.ready()
        await worker.stopping.wait()

def work(worker):
    worker.metrics.starts_total.inc(10)
    worker.ready()
    worker.stopping.wait()

metrics = Metrics(
    starts_total=Counter("Starts."),
    active=Gauge(),
    seconds=Histogram(labels={"kind": ["slow"]}, buckets=[1, 5]),
)
application = Application(services=[
    Service("web", serve, count=2, metrics=metrics,
            health_check_timeout=12),
    Service("batch", work, backend="sync", start_method="exec",
            metrics=Metrics(starts_total=Counter())),
])
"""

LIBRARY = """
from prometheus_client import Counter, Gauge
from trio_supervisor import Application, Service

served = Counter("served", "Served.", ["to"])
to_a = served.labels("a")
to_a.inc(100)  # in the parent: not counted again by each worker
busy = Gauge("busy", "Busy.", multiprocess_mode="livesum")

async def serve(worker):
    to_a.inc()
    late = Counter("late", "Made while it runs.")
    late.inc(2)
    busy.inc()
    await worker.ready()
    await worker.stopping.wait()

def work(worker):
    to_a.inc(10)
    worker.ready()
    worker.stopping.wait()

application = Application([
    Service("web", serve, count=2, prometheus_client=True),
    Service("batch", work, backend="sync", start_method="exec", prometheus_client=True),
    Service("other", work, backend="sync"),
])
"""


@pytest.fixture
def serving() -> Iterator[Serving]:
    with open_serving(COUNTING, words=["--http", "127.0.0.1:0"]) as serving:
        yield serving


def metrics(serving: Serving, *words: str) -> dict[str, float]:
    text = serving.cli("metrics", *words).stdout
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [line.rpartition(" ") for line in lines]
    return {name: float(value) for name, _, value in pairs}


def test_counts_outlive_crashes_and_reloads(serving: Serving) -> None:
    serving.when_ready()
    before = metrics(serving)
    assert before['starts_total{service="web"}'] == 2
    assert before['starts_total{service="batch"}'] == 10
    assert before['active{service="web"}'] == 2
    assert before['seconds_bucket{service="web",kind="slow",le="1.0"}'] == 0
    assert before['seconds_count{service="web",kind="slow"}'] == 2

    serving.kill("web.0")
    serving.wait_worker("web.0", incarnation=2, state="ready")
    after = metrics(serving)
    assert after['starts_total{service="web"}'] == 3
    assert after['active{service="web"}'] == 2
    assert after['trio_supervisor_exits_total{service="web",reason="killed"}'] == 1

    assert serving.cli("reload").returncode == 0
    reloaded = metrics(serving)
    assert reloaded['starts_total{service="web"}'] == 5
    assert reloaded['starts_total{service="batch"}'] == 20
    assert reloaded['trio_supervisor_reloads_total{result="succeeded"}'] == 1

    each = metrics(serving, "--per-worker")
    assert each['starts_total{service="web",worker="web.0"}'] == 1
    assert each['trio_supervisor_worker_ready{service="web",worker="web.1"}'] == 1


def test_prometheus_scrapes(serving: Serving) -> None:
    serving.when_ready()
    line = serving.wait_line("health checks at http://")
    found = re.search(r"http://([0-9.:]+)", line)
    assert found is not None
    connection = http.client.HTTPConnection(found[1])
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    kind = response.headers["Content-Type"]
    assert (response.status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'starts_total{service="web"} ' in response.read()
    accepted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    connection.request("GET", "/metrics?per_worker", headers=accepted)
    text = connection.getresponse().read()
    assert b'starts_total{service="web",worker="web.1"} 1' in text
    assert text.endswith(b"# EOF\n")
    connection.close()


def test_worker_has_start_time_and_last_exit_code(serving: Serving) -> None:
    serving.when_ready()
    before = metrics(serving)
    labels = '{service="web",worker="web.0"}'
    started = f"trio_supervisor_worker_start_time_seconds{labels}"
    last_exit = f"trio_supervisor_worker_last_exit_code{labels}"
    assert before[started] == pytest.approx(time.time(), abs=60)
    assert last_exit not in before

    serving.kill("web.0")
    serving.wait_worker("web.0", incarnation=2, state="ready")

    after = metrics(serving)
    assert after[last_exit] == -9
    assert after[started] > before[started]


def test_event_loop_lag_is_told(serving: Serving) -> None:
    serving.when_ready()
    lag = 'trio_supervisor_worker_event_loop_lag_seconds{service="web",worker="web.0"}'
    own = 'trio_supervisor_event_loop_lag_seconds{process="supervisor"}'
    found = metrics(serving)
    assert 0 <= found[lag] < 60
    assert 0 <= found[own] < 60
    assert 'trio_supervisor_event_loop_lag_seconds{process="controller"}' in found

    process_id = serving.worker("web.0")["process_id"]
    os.kill(process_id, signal.SIGSTOP)
    # Its heartbeat, due every second, does not come: the lag grows.
    serving.until(lambda: metrics(serving)[lag] > 0.5, "a lag")
    os.kill(process_id, signal.SIGCONT)


def test_metrics_of_prometheus_client_outlive_crashes_and_reloads() -> None:
    with open_serving(LIBRARY) as serving:
        serving.when_ready()
        found = metrics(serving)
        assert found['served_total{service="web",to="a"}'] == 2
        assert found['served_total{service="batch",to="a"}'] == 10
        assert found['late_total{service="web"}'] == 4
        assert not [name for name in found if 'service="other",to' in name]
        serving.kill("web.0")
        serving.until(
            lambda: metrics(serving)['served_total{service="web",to="a"}'] == 3,
            "the counts of a killed worker and of its successor",
        )
        serving.cli("reload")
        found = metrics(serving)
        assert found['served_total{service="web",to="a"}'] == 5
        assert found['busy{service="web"}'] == 2
        found = metrics(serving, "--per-worker")
        assert found['served_total{service="web",worker="web.1",to="a"}'] == 1


def test_supervisors_calls_are_counted_over_its_death(serving: Serving) -> None:
    serving.when_ready()
    serving.cli("status", "--json")
    serving.cli("stop", "nobody")
    before = metrics(serving)
    status = 'trio_supervisor_calls_total{operation="status",result="ok"}'
    failed = 'trio_supervisor_calls_total{operation="stop",result="failed"}'
    took = 'trio_supervisor_call_duration_seconds_count{operation="status"}'
    assert before[status] == before[took] == before[failed] == 1
    assert before['trio_supervisor_connections{kind="worker"}'] == 3
    serving.kill("supervisor")
    serving.when_ready()
    serving.cli("status", "--json")
    after = metrics(serving)
    assert after[status] > before[status]
    assert after[failed] == 1
    assert after['trio_supervisor_connections{kind="worker"}'] == 3
