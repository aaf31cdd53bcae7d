"""Names of metrics that services share."""

from __future__ import annotations

import pytest

from trio_supervisor.application import Application, Group, Service
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import Counter, Gauge, Metrics


async def serve(_: object) -> None: ...


def test_services_may_share_a_metric_of_one_kind() -> None:
    web = Service("web", serve, metrics=Metrics(n=Gauge("Number.")))
    Application([web, Service("api", serve, metrics=Metrics(n=Gauge()))])


def test_one_name_of_two_kinds_is_refused_where_it_is() -> None:
    web = Service("web", serve, metrics=Metrics(n=Gauge()))
    api = Service("api", serve, metrics=Metrics(n=Counter()))
    problem = r"services\[1\].*metrics.n: expected a Gauge, as web declares it"
    with pytest.raises(SpecError, match=problem):
        Application([web, Group([api])])
