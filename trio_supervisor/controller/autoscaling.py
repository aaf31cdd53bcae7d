"""Scale services whose load decides the number of their workers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.application import Service
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.controller.fleet.generation import Unit
from trio_supervisor.controller.metrics import MetricsBank
from trio_supervisor.controller.per_service import (
    ServiceOwner,
    Task,
    run_per_service,
)
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.autoscale import Autoscaler
from trio_supervisor.policy.metrics import Counter

logger = logging.getLogger(__name__)

# After a failed attempt, doubled with each one after it, as a multiple of `interval`.
_PATIENCE: Final = 2
_MAX_PATIENCE: Final = 32


class ScalingOwner(ServiceOwner, Protocol):
    """What is asked of the controller."""

    metrics: MetricsBank


@define(eq=False)
class Autoscaling:
    """Autoscaling of all services that declare it."""

    _owner: ScalingOwner

    async def run(self) -> None:
        """Scale until cancelled."""
        await run_per_service(self._owner, self._task_of)

    def _task_of(self, unit: Unit) -> Task | None:
        service = unit.service
        if not isinstance(service, Service) or service.autoscale is None:
            return None
        return _ScaledService(self._owner, service, service.autoscale).run


@define(eq=False)
class _ScaledService:
    """One service, until the next generation takes over."""

    _owner: ScalingOwner
    _service: Service
    _autoscale: Autoscale
    _decider: Autoscaler = field(init=False)
    _counted: tuple[float, float] | None = field(default=None, init=False)
    """Time and value of the last look at a counter."""
    _patience: int = field(default=1, init=False)
    """Intervals until the next look."""

    def __attrs_post_init__(self) -> None:
        self._decider = Autoscaler(self._autoscale.rule)

    async def run(self) -> None:
        """Look and scale until cancelled."""
        while True:
            await trio.sleep(self._patience * self._autoscale.interval)
            unit = self._owner.generation.units[self._service.name]
            is_stopped = unit.children and all(c.was_stopped for c in unit.children)
            if self._owner.is_stopping or is_stopped:
                continue  # stopped by hand
            await self._look(len(unit.children))

    async def _look(self, count: int) -> None:
        now, name = trio.current_time(), self._service.name
        load = self._load(now)
        if load is None or not math.isfinite(load):
            return
        wanted = self._decider.decide(now, load, count)
        if wanted == count:
            self._patience = 1
            return
        use = self._autoscale.rule.use(load, count)
        workers = f"{count} worker{'s' * (count != 1)}"
        logger.info(
            "%s: %s is %.4g, %.4g %% of what %s can bear (target %.4g %%); "
            "scaling to %d",
            *(name, self._autoscale.metric, load, 100 * use, workers),
            *(100 * self._autoscale.target, wanted),
        )
        await self._scale({name: wanted})

    async def _scale(self, counts: Mapping[str, int]) -> None:
        try:
            await self._owner.verbs.scale(counts)
        except SupervisorError as exc:
            self._patience = min(self._patience * _PATIENCE, _MAX_PATIENCE)
            logger.warning("%s: not scaled: %s", self._service.name, exc)
        else:
            self._patience = 1

    def _load(self, now: float) -> float | None:
        """Return the load; None: a counter was not read before."""
        assert self._service.metrics is not None
        metric = self._autoscale.metric
        value = self._owner.metrics.sum_of(self._service.name, metric)
        if not isinstance(self._service.metrics[metric], Counter):
            return value
        before, self._counted = self._counted, (now, value)
        if before is None or now <= before[0]:
            return None
        return max(0.0, value - before[1]) / (now - before[0])
