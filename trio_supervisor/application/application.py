"""An application: all that one controller runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from trio_supervisor.application import checks
from trio_supervisor.application.group import AnyService, Group, children_of
from trio_supervisor.application.tree import (
    check_dependencies,
    check_sockets,
    needs_of_application,
    node_of,
    placed_services,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import Condition
from trio_supervisor.policy.shutdown import AutoShutdown
from trio_supervisor.policy.strategy import GroupNode, Strategy


@runtime_checkable
class MonitorLike(Protocol):
    """What the supervisor asks of a monitor; `Monitor` is the base class to use."""

    interval: float

    def register(self, worker: Any) -> None: ...
    def remove(self, worker: Any) -> None: ...
    async def run_once(self) -> None: ...
    def status(self) -> Mapping[str, object]: ...


class Application:
    """All that one controller runs.

    Args:
        services: Services, commands and groups of them. Started in this order, as far
            as they do not depend on each other; stopped side by side, each once those
            that depend on it have ended.
        strategy: What is restarted together: see `Group`, as for the next two.
        intensity: Restart limit: at most so many crashes of all services within
            *period*; one more stops everything. None for no limit.
        period: Length of that window [s].
        auto_shutdown: Whether the end of ``"any"`` significant service ends the
            application, or of ``"all"``; without one that is significant nothing does.
        max_restarts_concurrently: So many planned restarts go on at once; None: any
            number.
        stop_timeout: Within which everything has ended once a shutdown began [s]; what
            is left shortly before that is killed. None: the `stop_timeout` of each
            service is all that counts. At most what a container runtime or a service
            manager allows: ``docker stop`` ten seconds, Kubernetes thirty.
        monitors: Run in the supervisor process; see `Monitor`.
        name: For logs and process titles.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        services: Sequence[AnyService | Group],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int | None = None,
        period: float = 60.0,
        auto_shutdown: AutoShutdown = "any",
        max_restarts_concurrently: int | None = None,
        stop_timeout: float | None = None,
        monitors: Sequence[MonitorLike] = (),
        name: str = "application",
    ) -> None:
        self.name = checks.name("name", name, reserved=frozenset())
        self.root = Group(
            children_of("services", services),
            strategy=strategy,
            intensity=intensity,
            period=period,
        )
        """The outermost group."""
        placed = placed_services(self.root)
        check_dependencies(self.root)
        check_sockets(list(placed.values()))
        self.services = tuple(item.service for item in placed.values())
        """All of them, however deep in groups, in the order of their declaration."""
        self.auto_shutdown: AutoShutdown = checks.one_of(
            "auto_shutdown", auto_shutdown, ("any", "all")
        )
        self.max_restarts_concurrently = checks.integer_or_none(
            "max_restarts_concurrently", max_restarts_concurrently, least=1
        )
        self.stop_timeout = checks.seconds_or_none("stop_timeout", stop_timeout)
        self.monitors = _monitors(monitors)

    def service(self, name: str) -> AnyService:
        """Return the service *name*.

        Raises:
            KeyError: there is none.
        """
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    def path(self, name: str) -> str:
        """Return where the service *name* stands, as ``services[1].children[0]``.

        Raises:
            KeyError: there is none.
        """
        return placed_services(self.root)[name].path

    def needs(self) -> dict[str, dict[str, Condition]]:
        """Return what each service depends on, with what ``rest_for_one`` adds."""
        return needs_of_application(self.root)

    def tree(self) -> GroupNode:
        """Return the groups as plain data; the outermost has the application's name."""
        return node_of(self.root, self.name)

    def __repr__(self) -> str:
        return f"Application({self.name!r}, services={list(self.root.children)!r})"


def _monitors(monitors: object) -> tuple[MonitorLike, ...]:
    found = checks.items("monitors", monitors)
    for index, monitor in enumerate(found):
        if isinstance(monitor, type) or not isinstance(monitor, MonitorLike):
            raise SpecError(
                f"monitors[{index}]",
                f"expected a Monitor (with interval, register, remove, run_once and "
                f"status), got {checks.shown(monitor)}",
            )
    return found
