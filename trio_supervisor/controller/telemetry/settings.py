"""Read where and how to export from the option and the standard variables.

Imports nothing of OpenTelemetry: a controller without the option must not load it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from attrs import field, frozen

from trio_supervisor.errors import PlatformError, SpecError
from trio_supervisor.policy.trace_sampling import TraceSampling

FROM_ENVIRONMENT: Final = "env"
"""Value of ``--otlp``: the endpoint is that of the environment."""
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_PROTOCOL: Final = "http/protobuf"
# How long the end of a controller waits for the last export [s].
_LAST_WITHIN: Final = 2.0


@frozen(kw_only=True)
class TelemetrySettings:
    """What to export, where to, and how often."""

    endpoint: str | None
    """Base URL of the receiver; None: the exporters take it from the environment."""
    shown: str
    """The receiver in the log: without a path or credentials, which may be secrets."""
    metrics_interval: float | None
    """Between two exports of metrics [s]; None: no metrics."""
    sampling: TraceSampling | None = None
    """Which traces to export; None: none."""
    spans_delay: float = 5.0
    """Between two exports of spans [s]."""
    last_within: float = field(default=_LAST_WITHIN)
    """How long the end of a controller waits for the last export [s]."""

    @classmethod
    def read(cls, otlp: str, environ: Mapping[str, str]) -> TelemetrySettings | None:
        """Return the settings; None: nothing is to be exported.

        Args:
            otlp: ``http://HOST:PORT``, or `FROM_ENVIRONMENT`.

        Raises:
            SpecError: *otlp* or one of the variables ``OTEL_…`` is invalid.
            PlatformError: OpenTelemetry is not installed.
        """
        is_env = otlp == FROM_ENVIRONMENT
        base = otlp
        if is_env:
            base = environ.get(_ENDPOINT) or _DEFAULT_ENDPOINT
        shown = _checked_url(base, _ENDPOINT if is_env else "otlp")
        if is_env:
            _check_protocol(environ)
        _check_installed()
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        interval = _seconds(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000)
        has_metrics = _is_wanted(environ, "OTEL_METRICS_EXPORTER")
        sampling = TraceSampling.read(environ)
        has_traces = _is_wanted(environ, "OTEL_TRACES_EXPORTER")
        return cls(
            endpoint=None if is_env else otlp.rstrip("/"),
            shown=shown,
            metrics_interval=interval if has_metrics else None,
            sampling=sampling if has_traces else None,
            spans_delay=_seconds(environ, "OTEL_BSP_SCHEDULE_DELAY", 5_000),
        )

    def url(self, signal: str) -> str | None:
        """Return where *signal* goes, such as ``metrics``; None: see `endpoint`."""
        return None if self.endpoint is None else f"{self.endpoint}/v1/{signal}"


def _checked_url(url: str, field_name: str) -> str:
    """Return what is shown of *url*, a base URL."""
    with suppress(ValueError):
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme in ("http", "https") and host and not parts.query:
            host = f"[{host}]" if ":" in host else host
            return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    raise SpecError(
        field_name,
        f"expected http://HOST:PORT, https://HOST:PORT, or for --otlp also "
        f"{FROM_ENVIRONMENT!r}; got {_without_secrets(url)!r:.80}",
    )


def _without_secrets(url: str) -> str:
    """Return *url* without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}{separator}{rest}"


def _check_protocol(environ: Mapping[str, str]) -> None:
    for name in (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    ):
        if (found := environ.get(name, _PROTOCOL)) not in ("", _PROTOCOL):
            raise SpecError(name, f"only {_PROTOCOL} is supported, got {found!r:.80}")


def _check_installed() -> None:
    with suppress(ModuleNotFoundError):  # of a parent package
        if importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http"):
            return
    raise PlatformError(
        "--otlp needs OpenTelemetry: pip install 'trio_supervisor[otel]'"
    )


def _is_wanted(environ: Mapping[str, str], name: str) -> bool:
    found = environ.get(name, "").strip() or "otlp"
    if found not in ("otlp", "none"):
        raise SpecError(name, f"expected otlp or none, got {found!r:.80}")
    return found == "otlp"


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    """Return the variable *name*, milliseconds, in seconds."""
    text = environ.get(name, "").strip()
    with suppress(ValueError):
        milliseconds = float(text) if text else default
        if math.isfinite(milliseconds) and milliseconds >= 1:
            return milliseconds / 1000
    raise SpecError(name, f"expected milliseconds, at least 1, got {text!r:.80}")
