"""A service that runs Python. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.fields import checked_later, documented, option
from trio_supervisor.application.process_options import ProcessOptions
from trio_supervisor.application.target import check_target
from trio_supervisor.application.templates import check_templates
from trio_supervisor.policy.metrics import Metrics

Backend: TypeAlias = Literal["trio", "asyncio", "sync"]
StartMethod: TypeAlias = Literal["fork_server", "exec"]


@documented
@define(
    eq=False,
    repr=False,
    slots=False,
    on_setattr=[],
    field_transformer=checked_later,
)
class Service(ProcessOptions):
    """A named group of identical worker processes that run one Python function.

    Example::

        Service("web", serve, count=4, restart="on-failure", stop_timeout=30)

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    name: str = field(
        converter=checks.name,
        metadata=option(
            "Name of the service; its workers are `NAME.0`, `NAME.1` and so on. Up to "
            "64 letters, digits, `-` and `_`."
        ),
    )
    target: Callable[..., Any] = field(
        metadata=option(
            "Function that each worker process calls with its `Worker` (a `SyncWorker` "
            'with `backend="sync"`). When it returns, the worker exits with code 0.'
        ),
    )
    backend: Backend = field(
        default="trio",
        kw_only=True,
        metadata=option(
            'What runs `target`: `"trio"` or `"asyncio"` for an async function, '
            '`"sync"` for a plain one.',
            choices=("trio", "asyncio", "sync"),
        ),
    )
    start_method: StartMethod = field(
        default="fork_server",
        kw_only=True,
        metadata=option(
            'How a worker is started. `"fork_server"`: forked within milliseconds from '
            'a process that has imported the application once. `"exec"`: in a new '
            "interpreter, for applications that start threads or open connections "
            "when they are imported.",
            choices=("fork_server", "exec"),
        ),
    )
    state: dict[str, Any] = field(
        default=None,
        kw_only=True,
        converter=checks.state,
        metadata=option(
            "Data that a worker sends along when it registers with the supervisor; "
            "JSON values only."
        ),
    )
    switch_interval: float | None = field(
        default=1e-4,
        kw_only=True,
        converter=checks.seconds_or_none,
        metadata=option(
            "Argument of `sys.setswitchinterval` in the worker. The default lets "
            "diagnostics run beside a busy event loop. `None` leaves Python's default.",
            unit="s",
        ),
    )

    metrics: Metrics | None = field(
        default=None,
        kw_only=True,
        converter=checks.metrics,
        metadata=option(
            "Metrics that its workers count, by name, such as "
            "`Metrics(requests_total=Counter())`; see [Metrics](../metrics.md).",
        ),
    )

    prometheus_client: bool = field(
        default=False,
        kw_only=True,
        converter=checks.flag,
        metadata=option(
            "Whether metrics that its code counts with the library prometheus_client "
            "are collected as well; see [Metrics](../metrics.md#prometheus_client).",
        ),
    )

    autoscale: Autoscale | None = field(default=None, init=False)
    """What decides the number of its workers; None: `count`."""

    def __attrs_post_init__(self) -> None:
        """Check the options, and that the backend can run the target."""
        super().__attrs_post_init__()
        count: Any = self.count
        if isinstance(count, Autoscale):
            count.check_metric(self.metrics)
            self.autoscale, self.count = count, count.minimum
        check_target("target", self.target, self.backend, self.name)
        check_templates(self)

    def __repr__(self) -> str:
        return f"Service({self.name!r}, count={self.count})"
