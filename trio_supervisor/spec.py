"""What a user declares: an application, its services, commands and monitors. Pure.

Every mistake in a declaration is a `SpecError` that names the field, raised where the
object is made, before anything starts.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Any,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    TypeGuard,
    runtime_checkable,
)

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.restart import Backoff, RestartPolicy, RestartRules

Backend: TypeAlias = Literal["trio", "asyncio", "sync"]
StartMethod: TypeAlias = Literal["fork_server", "exec"]

# A name is part of paths, of process titles and of `NAME.INDEX` on command lines.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SUPERVISOR_NAME: Final = "supervisor"
RESERVED_NAMES: Final = frozenset({SUPERVISOR_NAME, "controller", "guardian", "all"})
MAX_COUNT: Final = 10_000
_MAX_SECONDS: Final = 366 * 86_400.0
# Half of what a message may have: messages carry a state within a state.
_MAX_DEPTH: Final = 32


@runtime_checkable
class MonitorLike(Protocol):
    """What the supervisor asks of a monitor; `Monitor` is the base class to use."""

    interval: float

    def register(self, worker: Any) -> None: ...
    def remove(self, worker: Any) -> None: ...
    async def run_once(self) -> None: ...
    def status(self) -> Mapping[str, object]: ...


class Service:
    """A named group of identical worker processes that run one Python function.

    Args:
        name: Its workers are ``name.0``, ``name.1`` …; letters, digits, ``-``, ``_``.
        target: Called with a `Worker` (a `SyncWorker` for ``backend="sync"``) in each
            process. A worker whose target returns has ended with exit code 0.
        count: How many workers.
        backend: What runs *target*: ``"trio"`` or ``"asyncio"`` for an async function,
            ``"sync"`` for a plain one.
        restart: When a worker that ended is started again.
        backoff: Delays between restarts; None for no delay.
        intensity: So many unplanned restarts of one worker within *period* are borne;
            one more stops the whole application. None for any number.
        period: Length of that window [s].
        startup_timeout: A worker not ready in this time is replaced [s]; None: wait.
        health_check_timeout: A ready worker whose main loop gave no heartbeat for this
            long is replaced [s]; None: never.
        stop_signal: What asks a worker, and all of its process group, to end.
        stop_timeout: Time from there to SIGKILL [s].
        state: Sent along when a worker registers; JSON values only.
        environment: Variables to add to the worker's environment, or to replace.
        directory: Working directory; None: the controller's.
        start_method: ``"fork_server"`` forks workers within milliseconds from a process
            that has imported the application once; ``"exec"`` starts a new interpreter
            for each, for applications that start threads or connect when imported.
        switch_interval: ``sys.setswitchinterval`` of the worker [s]; None: leave it.
            The default lets diagnostics in beside a busy main loop.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        *,
        count: int = 1,
        backend: Backend = "trio",
        restart: RestartPolicy | str = RestartPolicy.ALWAYS,
        backoff: Backoff | None = Backoff(),  # noqa: B008 (frozen)
        intensity: int | None = 10,
        period: float = 60.0,
        startup_timeout: float | None = 60.0,
        health_check_timeout: float | None = 30.0,
        stop_signal: signal.Signals | str = signal.SIGTERM,
        stop_timeout: float = 10.0,
        state: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        start_method: StartMethod = "fork_server",
        switch_interval: float | None = 1e-4,
    ) -> None:
        self.name = _check_name("name", name)
        if not callable(target):
            raise SpecError("target", f"expected a function, got {_shown(target)}")
        self.target = target
        self.count = _integer("count", count, least=0, most=MAX_COUNT)
        self.backend: Backend = _one_of("backend", backend, ("trio", "asyncio", "sync"))
        self.rules = _rules(restart, backoff, intensity, period)
        self.startup_timeout = _seconds_or_none("startup_timeout", startup_timeout)
        self.health_check_timeout = _seconds_or_none(
            "health_check_timeout", health_check_timeout
        )
        self.stop_signal = _signal("stop_signal", stop_signal)
        self.stop_timeout = _seconds("stop_timeout", stop_timeout, least=0)
        self.state = _json_object("state", state)
        self.environment = _strings(
            "environment", {} if environment is None else environment
        )
        self.directory = _text_or_none("directory", directory)
        self.start_method: StartMethod = _one_of(
            "start_method", start_method, ("fork_server", "exec")
        )
        self.switch_interval = _seconds_or_none("switch_interval", switch_interval)

    def __repr__(self) -> str:
        return f"Service({self.name!r}, count={self.count})"


class Command:
    """A named group of identical processes that run any other program.

    Takes what `Service` takes, but for what concerns Python. Without ``notify`` the
    program is ready once it is started.

    Args:
        arguments: The program and its arguments; found on PATH, run without a shell.
        notify: Give it ``NOTIFY_SOCKET`` and wait for its ``READY=1`` (sd_notify(3)).
        health_check_timeout: With *notify*: it also gets ``WATCHDOG_USEC``, and is
            replaced when ``WATCHDOG=1`` does not come in time [s].

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        count: int = 1,
        notify: bool = False,
        restart: RestartPolicy | str = RestartPolicy.ALWAYS,
        backoff: Backoff | None = Backoff(),  # noqa: B008 (frozen)
        intensity: int | None = 10,
        period: float = 60.0,
        startup_timeout: float | None = 60.0,
        health_check_timeout: float | None = None,
        stop_signal: signal.Signals | str = signal.SIGTERM,
        stop_timeout: float = 10.0,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
    ) -> None:
        self.name = _check_name("name", name)
        self.arguments = _arguments("arguments", arguments)
        self.count = _integer("count", count, least=0, most=MAX_COUNT)
        if not isinstance(notify, bool):
            raise SpecError("notify", f"expected True or False, got {_shown(notify)}")
        self.notify = notify
        self.rules = _rules(restart, backoff, intensity, period)
        self.startup_timeout = _seconds_or_none("startup_timeout", startup_timeout)
        self.health_check_timeout = _seconds_or_none(
            "health_check_timeout", health_check_timeout
        )
        if health_check_timeout is not None and not notify:
            raise SpecError("health_check_timeout", "needs notify=True")
        self.stop_signal = _signal("stop_signal", stop_signal)
        self.stop_timeout = _seconds("stop_timeout", stop_timeout, least=0)
        self.environment = _strings(
            "environment", {} if environment is None else environment
        )
        self.directory = _text_or_none("directory", directory)

    def __repr__(self) -> str:
        return f"Command({self.name!r}, {list(self.arguments)!r}, count={self.count})"


AnyService: TypeAlias = Service | Command


class Application:
    """All that one controller runs.

    Args:
        services: Started in this order, stopped in reverse.
        monitors: Run in the supervisor process; see `Monitor`.
        name: For logs and process titles.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        services: Sequence[AnyService],
        *,
        monitors: Sequence[MonitorLike] = (),
        name: str = "application",
    ) -> None:
        self.name = _check_name("name", name, reserved=frozenset())
        self.services = _services(services)
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

    def __repr__(self) -> str:
        return f"Application({self.name!r}, services={list(self.services)!r})"


def _services(services: object) -> tuple[AnyService, ...]:
    if isinstance(services, str) or not isinstance(services, Sequence):
        raise SpecError("services", f"expected a list, got {_shown(services)}")
    seen: dict[str, int] = {}
    for index, service in enumerate(services):
        if not isinstance(service, Service | Command):
            problem = f"expected a Service or a Command, got {_shown(service)}"
            raise SpecError(f"services[{index}]", problem)
        if service.name in seen:
            problem = f"services[{seen[service.name]}] has the name {service.name!r}"
            raise SpecError(f"services[{index}].name", f"{problem} already")
        seen[service.name] = index
    return tuple(services)


def _monitors(monitors: object) -> tuple[MonitorLike, ...]:
    if isinstance(monitors, str) or not isinstance(monitors, Sequence):
        raise SpecError("monitors", f"expected a list, got {_shown(monitors)}")
    for index, monitor in enumerate(monitors):
        if isinstance(monitor, type) or not isinstance(monitor, MonitorLike):
            raise SpecError(
                f"monitors[{index}]",
                f"expected a Monitor (with interval, register, remove, run_once and "
                f"status), got {_shown(monitor)}",
            )
    return tuple(monitors)


def _rules(
    restart: object, backoff: object, intensity: object, period: object
) -> RestartRules:
    if not isinstance(restart, RestartPolicy):
        values = tuple(policy.value for policy in RestartPolicy)
        restart = RestartPolicy(_one_of("restart", restart, values))
    if backoff is not None and not isinstance(backoff, Backoff):
        raise SpecError("backoff", f"expected a Backoff or None, got {_shown(backoff)}")
    if intensity is not None:
        intensity = _integer("intensity", intensity, least=0)
    return RestartRules(
        policy=restart,
        backoff=backoff,
        intensity=intensity,
        period=_seconds("period", period, least=1e-3),
    )


def _check_name(
    field: str, value: object, reserved: frozenset[str] = RESERVED_NAMES
) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SpecError(
            field,
            f"expected up to 64 letters, digits, '-' and '_', starting with a letter "
            f"or digit, got {_shown(value)}",
        )
    if value in reserved:
        raise SpecError(field, f"{value!r} is reserved; choose another name")
    return value


def _integer(field: str, value: object, *, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(field, f"expected a whole number, got {_shown(value)}")
    if value < least:
        raise SpecError(field, f"expected {least} or more, got {_shown(value)}")
    if most is not None and value > most:
        raise SpecError(field, f"expected {most} or less, got {_shown(value)}")
    return value


def _seconds(field: str, value: object, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(field, f"expected a number of seconds, got {_shown(value)}")
    if not least <= value <= _MAX_SECONDS:
        problem = f"expected {least} to {_MAX_SECONDS} s, got {_shown(value)}"
        raise SpecError(field, problem)
    return float(value)


def _seconds_or_none(field: str, value: object) -> float | None:
    return None if value is None else _seconds(field, value, least=1e-6)


def _one_of(field: str, value: object, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise SpecError(field, f"expected one of {expected}, got {_shown(value)}")
    return value


def _signal(field: str, value: object) -> signal.Signals:
    if isinstance(value, signal.Signals):
        found: signal.Signals | None = value
    elif isinstance(value, str):
        full = value if value.startswith("SIG") else f"SIG{value}"
        found = signal.Signals.__members__.get(full)
    else:
        found = None
    if found is None:
        raise SpecError(
            field, f"expected a signal such as 'SIGTERM', got {_shown(value)}"
        )
    if found in (signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD):
        raise SpecError(field, f"{found.name} does not end a process")
    return found


def _arguments(field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        problem = f"expected a list: the program and its arguments, got {_shown(value)}"
        raise SpecError(field, problem)
    for index, item in enumerate(value):
        if not _is_text(item):
            raise SpecError(
                f"{field}[{index}]", f"expected a string, got {_shown(item)}"
            )
    return tuple(value)


def _strings(field: str, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(field, f"expected a dictionary, got {_shown(value)}")
    for key, item in value.items():
        if not _is_text(key) or not key or "=" in key:
            raise SpecError(field, f"not the name of a variable: {_shown(key)}")
        if not _is_text(item):
            raise SpecError(
                f"{field}[{key!r}]", f"expected a string, got {_shown(item)}"
            )
    return dict(value)


def _text_or_none(field: str, value: object) -> str | None:
    if value is not None and not _is_text(value):
        raise SpecError(field, f"expected a path as a string, got {_shown(value)}")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a system call takes *value*: see `os.fsencode`."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _json_object(field: str, value: object, depth: int = 0) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(field, f"expected a dictionary, got {_shown(value)}")
    for key, item in value.items():
        if not isinstance(key, str):
            raise SpecError(field, f"expected strings as keys, got {_shown(key)}")
        _check_json(f"{field}[{key!r}]", item, depth + 1)
    return dict(value)


def _check_json(field: str, value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise SpecError(field, f"nested deeper than {_MAX_DEPTH} levels")
    match value:
        case int() if not -(2**63) <= value < 2**64:
            raise SpecError(field, f"expected 64 bits at most, got {_shown(value)}")
        case None | bool() | int() | float() | str():
            return
        case list() | tuple():
            for index, item in enumerate(value):
                _check_json(f"{field}[{index}]", item, depth + 1)
        case dict():
            _json_object(field, value, depth)
        case _:
            raise SpecError(field, f"expected a JSON value, got {_shown(value)}")


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # whatever a __repr__ raises; an integer of 5,000 digits does
        return f"a value of type {type(value).__name__}"
