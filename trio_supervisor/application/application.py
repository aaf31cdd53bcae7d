"""An application: everything that one controller runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.event_hooks import Exec, Webhook, event_hooks
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    documented,
    option,
)
from trio_supervisor.application.group import AnyService, Group, children_of
from trio_supervisor.application.immortality import immortal_flag
from trio_supervisor.application.metric_kinds import check_metric_kinds
from trio_supervisor.application.tree import (
    check_dependencies,
    check_sockets,
    needs_of_application,
    node_of,
    placed_services,
)
from trio_supervisor.application.worker_policy import (
    Policy,
    PolicyName,
    policy_or_none,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import Condition
from trio_supervisor.policy.shutdown import AutoShutdown
from trio_supervisor.policy.strategy import STRATEGIES, GroupNode, Strategy


@runtime_checkable
class MonitorLike(Protocol):
    """What the supervisor calls of a monitor; `Monitor` is the base class to use."""

    interval: float

    def register(self, worker: Any) -> None: ...
    def remove(self, worker: Any) -> None: ...
    async def run_once(self) -> None: ...
    def status(self) -> Mapping[str, object]: ...


def _checked_monitors(
    value: Sequence[MonitorLike], field: str = ""
) -> tuple[MonitorLike, ...]:
    found = checks.items(value, field)
    for index, monitor in enumerate(found):
        if isinstance(monitor, type) or not isinstance(monitor, MonitorLike):
            raise SpecError(
                f"{field}[{index}]",
                f"expected a Monitor (with interval, register, remove, run_once and "
                f"status), got {checks.shown(monitor)}",
            )
    return found


def _checked_name(value: str, field: str = "") -> str:
    # Unlike the name of a service, it is not used for workers on a command line.
    return checks.name(value, field, reserved=frozenset())


@documented
@define(
    eq=False,
    repr=False,
    slots=False,
    on_setattr=[],
    field_transformer=checked_later,
)
class Application(Checked):
    """Everything that one controller runs: services, monitors and limits.

    Example::

        application = Application([Service("web", serve, count=4)], stop_timeout=25)

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    services: tuple[AnyService, ...] = field(
        converter=children_of,
        metadata=option(
            "Services, commands and groups of them. They are started in this order, "
            "except where `depends_on` says otherwise, and stopped at the same time, "
            "each after the services that depend on it."
        ),
    )
    """All services, also those in groups, in the order of their declaration."""
    strategy: Strategy = field(
        default="one_for_one",
        kw_only=True,
        metadata=option(
            "What is restarted together with a worker that crashed: see `Group`.",
            choices=STRATEGIES,
        ),
    )
    intensity: int | None = field(
        default=None,
        kw_only=True,
        converter=checks.integer_or_none,
        metadata=option(
            "Restart limit: maximum number of crashes across all services within "
            "`period`; one more shuts the application down. `None` sets no limit.",
            least=0,
        ),
    )
    period: float = field(
        default=60.0,
        kw_only=True,
        converter=checks.seconds,
        metadata=option(
            "Length of the sliding window in which crashes are counted for "
            "`intensity`.",
            unit="s",
            least=1e-3,
        ),
    )
    auto_shutdown: AutoShutdown = field(
        default="any",
        kw_only=True,
        metadata=option(
            'Whether the application ends when `"any"` of its significant services '
            'has exited for good on its own, or when `"all"` of them have. Without '
            "a significant service it never ends on its own.",
            choices=("any", "all"),
        ),
    )
    max_restarts_concurrently: int | None = field(
        default=None,
        kw_only=True,
        converter=checks.integer_or_none,
        metadata=option(
            "Maximum number of planned restarts at the same time; `None` sets no "
            "limit.",
            least=1,
        ),
    )
    stop_timeout: float | None = field(
        default=None,
        kw_only=True,
        converter=checks.seconds_or_none,
        metadata=option(
            "Maximum duration of a shutdown; processes that are left shortly before "
            "its end are killed. Set it to at most what the container runtime or "
            "service manager allows: 10 s for `docker stop`, 30 s in Kubernetes. "
            "`None`: only the `stop_timeout` of each service counts.",
            unit="s",
        ),
    )
    monitors: tuple[MonitorLike, ...] = field(
        default=(),
        kw_only=True,
        converter=_checked_monitors,
        metadata=option("Monitors to run in the supervisor process: see `Monitor`."),
    )
    policy: Policy | PolicyName | None = field(
        default=None,
        kw_only=True,
        converter=policy_or_none,
        metadata=option(
            "An object that decides what happens to workers that exit, hang or leak, "
            "where that should depend on more than options: see `Policy`."
        ),
    )
    on_event: tuple[Exec | Webhook, ...] = field(
        default=(),
        kw_only=True,
        converter=event_hooks,
        metadata=option(
            "Programs and web hooks that receive events: see `Exec` and `Webhook`."
        ),
    )
    immortal_preload: bool = field(
        default=False,
        kw_only=True,
        converter=immortal_flag,
        metadata=option(
            "Whether to make all objects that the import leaves immortal before "
            "workers are forked, so that they share more of its memory: their "
            "reference counts are never written again (PEP 683), and they are never "
            "freed. It needs CPython 3.12 or 3.13."
        ),
    )
    name: str = field(
        default="application",
        kw_only=True,
        converter=_checked_name,
        metadata=option("Name for logs and process titles."),
    )
    root: Group = field(init=False)
    """The outermost group."""
    _paths: dict[str, str] = field(init=False)
    places: Mapping[str, str] = field(init=False, factory=dict)
    """Where its parts were declared in a configuration file: see `located`."""

    def __attrs_post_init__(self) -> None:
        """Check the options, and that the services fit together."""
        super().__attrs_post_init__()
        self.root = Group(
            self.services,
            strategy=self.strategy,
            intensity=self.intensity,
            period=self.period,
        )
        placed = placed_services(self.root)
        self._paths = {name: item.path for name, item in placed.items()}
        check_dependencies(self.root)
        check_sockets(list(placed.values()))
        check_metric_kinds(placed.values())
        self.services = tuple(item.service for item in placed.values())

    def service(self, name: str) -> AnyService:
        """Return the service *name*.

        Raises:
            KeyError: there is no such service.
        """
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    def path(self, name: str) -> str:
        """Return the path of the service *name*, such as ``services[1].children[0]``.

        Raises:
            KeyError: there is no such service.
        """
        return self._paths[name]

    def needs(self) -> dict[str, dict[str, Condition]]:
        """Return what each service depends on, with what ``rest_for_one`` adds."""
        return needs_of_application(self.root)

    def tree(self) -> GroupNode:
        """Return the groups as plain data; the outermost has the application's name."""
        return node_of(self.root, self.name)

    def __repr__(self) -> str:
        return f"Application({self.name!r}, services={list(self.root.children)!r})"
