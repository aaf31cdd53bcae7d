"""A receiver of OTLP over HTTP: decodes what real exporters send."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kits.serving import PATIENCE


class OtlpReceiver:
    """A web server that keeps what it has received."""

    def __init__(self) -> None:
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.spans: list[Span] = []
        self.headers: list[Mapping[str, str]] = []
        self.status = 200
        """Of the answers from now on."""
        self.hangs = False
        """Whether requests from now on are not answered."""
        self.refused = 0
        """Requests that were answered with another status, or not at all."""
        self._is_over = threading.Event()
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        if request.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        with self._news:
            if self.status == 200 and not self.hangs:
                self.headers.append(dict(request.headers))
                self._keep(request.path, body)
            else:
                self.refused += 1
            self._news.notify_all()
        if self.hangs:
            self._is_over.wait(PATIENCE)
        request.send_response(self.status)
        request.end_headers()

    def _keep(self, path: str, body: bytes) -> None:
        if path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
            return
        assert path == "/v1/traces", path
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def wait(self, is_true: Callable[[], Any], what: str) -> Any:
        """Wait until *is_true* returns something true, and return that."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while not (found := is_true()):
                assert self._news.wait(end - time.monotonic()), f"no {what}"
        return found

    def latest(self) -> dict[str, Metric]:
        """Return the metrics of the last request, by name."""
        [resource] = self.metrics[-1].resource_metrics
        [scope] = resource.scope_metrics
        assert scope.scope.name == "trio_supervisor"
        return {metric.name: metric for metric in scope.metrics}

    def span(self, name: str, **wanted: object) -> Span:
        """Wait for a span of that name and with these attributes of ours."""

        def find() -> Span | None:
            for span in self.spans:
                found = attributes(span.attributes)
                ours = {k: found.get(f"trio_supervisor.{k}") for k in wanted}
                if span.name == name and ours == wanted:
                    return span
            return None

        found: Span = self.wait(find, f"span {name}")
        return found

    def resource(self) -> dict[str, Any]:
        """Return the attributes of what sent the last request."""
        [resource] = self.metrics[-1].resource_metrics
        return attributes(resource.resource.attributes)

    def close(self) -> None:
        """Answer those that wait."""
        self._is_over.set()


def attributes(pairs: Any) -> dict[str, Any]:
    """Return attributes as a dictionary of plain values."""
    return {pair.key: _plain(pair) for pair in pairs}


def _plain(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return None if kind is None else getattr(pair.value, kind)


@contextmanager
def receiving() -> Iterator[OtlpReceiver]:
    """Receive for the length of the block."""
    receiver = OtlpReceiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.close()
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()
