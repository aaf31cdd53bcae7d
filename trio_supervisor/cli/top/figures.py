"""Read what ``top`` shows of the text of the call ``metrics``."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_LAG: Final = re.compile(
    r'trio_supervisor_worker_event_loop_lag_seconds\{.*?worker="((?:[^"\\]|\\.)*)".*\} '
    r"(\S+)"
)
_WORKERS: Final = re.compile(
    r'trio_supervisor_workers\{service="((?:[^"\\]|\\.)*)",state="\w+"\} \S+'
)


class TopFigures(NamedTuple):
    """What the metrics say in addition to the status."""

    lags: dict[str, float]
    """How late the event loop of each worker was [s], by name."""
    services: list[str]
    """All services, also those without workers."""


def read_figures(text: str) -> TopFigures:
    """Return the figures in *text*, Prometheus' text format."""
    lags: dict[str, float] = {}
    services: dict[str, None] = {}
    for line in text.splitlines():
        if (match := _LAG.fullmatch(line)) is not None:
            lags[match[1]] = float(match[2])
        elif (match := _WORKERS.fullmatch(line)) is not None:
            services[match[1]] = None
    return TopFigures(lags, list(services))
