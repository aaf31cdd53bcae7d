"""Check that services that share the name of a metric mean the same kind. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from trio_supervisor.application.service import Service
from trio_supervisor.application.tree import Placed
from trio_supervisor.errors import SpecError


def check_metric_kinds(placed: Iterable[Placed]) -> None:
    """Check that each name of a metric is of one kind in all services.

    Prometheus has one type for each name: samples of another would be lost.

    Raises:
        SpecError: two services declare a name differently.
    """
    first: dict[str, tuple[str, str]] = {}
    for item in placed:
        service = item.service
        if not isinstance(service, Service) or service.metrics is None:
            continue
        for name in service.metrics:
            kind = type(service.metrics[name]).__name__
            known, where = first.setdefault(name, (kind, service.name))
            if kind != known:
                problem = f"expected a {known}, as {where} declares it, got a {kind}"
                raise SpecError(f"{item.path}.metrics.{name}", problem)
