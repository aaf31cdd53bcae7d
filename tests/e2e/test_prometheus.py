"""Prometheus, the real one, reads our metrics; our alerts and dashboard fit them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.serving import Serving, open_serving, short_directory
from tests.kits.sockets import unused_port

FILES = Path(__file__).parents[2] / "docs" / "prometheus"
PATIENCE = 60

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="no prometheus here",
)

SERVICE = """
from trio_supervisor import (
    Application, Command, Counter, Gauge, Histogram, Metrics, Schedule, Service
)

async def serve(worker):
    worker.metrics.requests_total.labels(method="GET").inc(3)
    worker.metrics.latency_seconds.observe(0.2)
    await worker.ready()
    await worker.stopping.wait()

metrics = Metrics(
    requests_total=Counter('"All" \\\\ requests.', labels={"method": ["GET"]}),
    active=Gauge("Requests in progress."),
    latency_seconds=Histogram("Duration of requests.", buckets=[0.1, 1]),
)
application = Application([
    Service("web", serve, count=2, metrics=metrics),
    Command("other", ["sleep", "1000"]),
    Schedule("tick", ["true"], every=0.2),
])
"""

CONFIGURATION = """
global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}
rule_files: ["{files}/alerts.yml"]
scrape_configs:
  - job_name: trio_supervisor
    static_configs: [{{ targets: ["{target}"] }}]
"""


def promtool(*words: str, text: str | None = None) -> None:
    done = subprocess.run(
        ["promtool", *words],
        input=text,
        capture_output=True,
        text=True,
        cwd=FILES,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the answer to a call of its API."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.address}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(exc.read().decode()) from None

    def values(self, expression: str) -> list[float]:
        """Return the present values of *expression*."""
        found = self.ask("query", query=expression)["result"]
        return [float(each["value"][1]) for each in found]

    def wait_values(self, expression: str, wanted: list[float]) -> None:
        """Wait until *expression* has the values *wanted*."""
        until = time.monotonic() + PATIENCE
        while (found := self.values(expression)) != wanted:
            assert time.monotonic() < until, f"{expression}: {found}, not {wanted}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, words=["--http", "127.0.0.1:0"]) as serving:
        yield serving


@pytest.fixture(scope="module")
def prometheus(serving: Serving) -> Iterator[Prometheus]:
    line = serving.wait_line("health checks at http://")
    target = re.search(r"http://([0-9.:]+)", line)
    assert target is not None
    with short_directory() as directory:
        configuration = directory / "prometheus.yml"
        text = CONFIGURATION.format(files=FILES, target=target[1])
        configuration.write_text(text)
        address = f"127.0.0.1:{unused_port()}"
        words = [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ]
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            until = time.monotonic() + PATIENCE
            while True:
                try:
                    urllib.request.urlopen(f"http://{address}/-/ready", timeout=5)
                    break
                except OSError:
                    assert process.poll() is None, (directory / "log").read_text()
                    assert time.monotonic() < until, (directory / "log").read_text()
                    time.sleep(0.05)
            yield Prometheus(address)
        finally:
            process.terminate()
            process.wait()


def test_promtool_finds_no_fault_with_our_metrics(serving: Serving) -> None:
    serving.when_ready()
    promtool("check", "metrics", text=serving.cli("metrics").stdout)
    promtool("check", "metrics", text=serving.cli("metrics", "--per-worker").stdout)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")


def test_each_alert_is_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", (FILES / "alerts.yml").read_text())
    tested = (FILES / "alerts_test.yml").read_text()
    for alert in alerts:
        fires = rf"alertname: {alert}\n\s+exp_alerts:\n"
        assert re.search(fires, tested), f"no test in which {alert} fires"


def test_prometheus_reads_counts_over_a_kill(
    serving: Serving, prometheus: Prometheus
) -> None:
    prometheus.wait_values("up", [1])
    requests = 'requests_total{service="web",method="GET"}'
    prometheus.wait_values(requests, [6])
    prometheus.wait_values('latency_seconds_bucket{service="web",le="1.0"}', [2])

    serving.kill("web.0")

    prometheus.wait_values(requests, [9])
    killed = 'trio_supervisor_exits_total{service="web",reason="killed"}'
    prometheus.wait_values(killed, [1])
    prometheus.wait_values(f"increase({killed}[1h]) > bool 0", [1])
    targets = prometheus.ask("targets")["activeTargets"]
    assert [target["lastError"] for target in targets] == [""]


def test_prometheus_loads_our_alerts(prometheus: Prometheus) -> None:
    (group,) = prometheus.ask("rules")["groups"]
    assert len(group["rules"]) == 10
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}


def test_every_panel_of_the_dashboard_has_data(
    serving: Serving, prometheus: Prometheus
) -> None:
    serving.until(
        lambda: "schedule_last_run_timestamp" in serving.cli("metrics").stdout, "a run"
    )
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    everything = {"$instance": ".*", "$service": ".*", "$__rate_interval": "1h"}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in everything.items():
                expression = expression.replace(name, value)
            # Whether something has happened is not what is asked here.
            expression = expression.removesuffix(" > 0")
            until = time.monotonic() + PATIENCE
            while not prometheus.values(expression):
                assert time.monotonic() < until, f"{panel['title']}: {expression}"
                time.sleep(0.05)
