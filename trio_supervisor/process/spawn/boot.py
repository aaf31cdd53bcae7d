"""Hand a child that runs this package its settings, and read them in the child.

The boot document is pickled into an anonymous file whose descriptor the child inherits:
only its own parent can have written it, and its size is not limited.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

from attrs import frozen

from trio_supervisor.application import Backend, MonitorLike
from trio_supervisor.application.target import unbound
from trio_supervisor.application.worker_policy import Policy, PolicyName
from trio_supervisor.errors import PlatformError, SpecError
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.process.spawn.code_source import Pickled, Reference

T = TypeVar("T")

_is_importing = False
"""Whether this child is importing the modules of its parent."""


@frozen(kw_only=True)
class WorkerBoot:
    """Settings of a worker process."""

    source: Reference | Pickled
    """The application, or the target alone."""
    name: str
    service: str
    index: int
    incarnation: int
    backend: Backend
    state: dict[str, Any]
    directory: str | None
    """Working directory; None: stay."""
    started_in: str = ""
    """Working directory of the controller. A forked worker in another directory was
    moved there by the import and stays, as it would after running the import itself."""
    socket_path: str
    notify_path: str
    stop_signal: signal.Signals
    stop_timeout: float
    heartbeat: float | None
    """Interval between heartbeats [s]."""
    switch_interval: float | None
    generation: int = 1
    has_channel: bool = False
    """Whether descriptors of a notification socket and a heartbeat page follow the
    lifeline."""
    has_black_box: bool = False
    """Whether the descriptor of a black box follows."""
    metrics: Metrics | None = None
    """Metrics whose numbers' descriptor follows."""
    has_values: bool = False
    """Whether the descriptor of a table of values follows, for prometheus_client."""
    sockets: tuple[str, ...] = ()
    """Names of the listening sockets whose descriptors follow."""
    head_start: float = 0.003
    """How long its own code runs before the agent starts [s]."""

    @classmethod
    def alone(cls, name: str, **settings: Any) -> WorkerBoot:
        """Return the settings of worker *name* that has no controller.

        Args:
            name: ``SERVICE.INDEX``, or any other name: then that of the service, too.
            settings: Those that are not the defaults.
        """
        service, _, index = name.rpartition(".")
        defaults: dict[str, Any] = {
            "source": Pickled({}, b""),
            "service": service or name,
            "index": int(index) if index.isdecimal() else 0,
            "incarnation": 1,
            "backend": "trio",
            "state": {},
            "directory": None,
            "socket_path": "",
            "notify_path": "",
            "stop_signal": signal.SIGTERM,
            "stop_timeout": 10.0,
            "heartbeat": None,
            "switch_interval": None,
        }
        return cls(name=name, **{**defaults, **settings})


class SupervisorCode(NamedTuple):
    """What the supervisor process needs of an application."""

    monitors: Sequence[MonitorLike]
    policy: Policy | PolicyName | None


NO_MONITORS: Final = Pickled({}, pickle.dumps(SupervisorCode((), None)))
"""Source of a supervisor that imports nothing of the application."""


@frozen(kw_only=True)
class SupervisorBoot:
    """Settings of the supervisor process."""

    source: Reference | Pickled
    """The application, or its `SupervisorCode`."""
    incarnation: int
    notify_path: str
    heartbeat: float | None
    controller_pid: int
    log_format: str
    has_channel: bool = False
    """Whether descriptors of a notification socket and a heartbeat page come last."""
    owns_process: bool = False
    """Whether all children of the controller's process belong to the controller."""
    sampling: TraceSampling | None = None
    """Which calls are recorded as spans; None: no call."""


def pickle_source(field: str, value: object) -> Pickled:
    """Pickle *value* for a child.

    Raises:
        SpecError: it refers to something that a child cannot import: a lambda, a
            nested function, an open file …
    """
    # Imported here: multiprocessing takes 20 ms, and `serve` does not need it.
    from multiprocessing.spawn import get_preparation_data

    try:
        data = pickle.dumps(value)
    except Exception as exc:  # a __reduce__ method can raise any exception
        raise SpecError(
            field,
            f"cannot be imported in a child process ({_nameless(value) or exc}); "
            f"define it at the top level of a module",
        ) from exc
    if (problem := _unreachable(value)) is not None:
        raise SpecError(field, problem)
    preparation = dict(get_preparation_data("trio_supervisor"))
    preparation.pop("authkey", None)  # a secret that our children do not need
    preparation.pop("start_method", None)
    return Pickled(preparation, data)


def _nameless(value: object) -> str:
    """Return why pickle cannot refer to the function *value* by name."""
    name = str(getattr(unbound(value), "__qualname__", ""))
    if name.endswith("<lambda>"):
        return "a lambda has no name"
    if "<locals>" in name:
        outer, _, inner = name.rpartition(".<locals>.")
        return f"{inner} is defined inside {outer}()"
    return ""


def _unreachable(value: object) -> str | None:
    """Return why a child cannot import the module of the function *value*, if so."""
    inner = unbound(value)
    main = sys.modules.get("__main__")
    has_origin = getattr(main, "__spec__", None) or os.path.exists(
        getattr(main, "__file__", None) or ""
    )
    if getattr(inner, "__module__", None) != "__main__" or has_origin:
        return None
    return (
        f"{getattr(inner, '__qualname__', 'it')} is defined in __main__, which is not "
        f"a file (python -c, standard input, a REPL), so a child process cannot import "
        f"it; define it in a module"
    )


def check_not_importing() -> None:
    """Refuse to start a controller in a child that imports the main module.

    Raises:
        PlatformError: the main module has no ``__main__`` guard.
    """
    if _is_importing:
        raise PlatformError(
            "a controller was opened while a child process imported the main module; "
            'guard the code that opens it with: if __name__ == "__main__":'
        )


def with_added_path(path: Sequence[str]) -> list[str]:
    """Return *path*, preceded by entries of PYTHONPATH that it does not have."""
    wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    added = [os.path.abspath(entry) for entry in wanted if entry]
    return [*(entry for entry in added if entry not in path), *path]


def unpickle_source(source: Pickled) -> Any:
    """Import the modules of the parent, and return the object in *source*."""
    from multiprocessing.spawn import prepare

    global _is_importing
    _is_importing = True
    try:
        path = source.preparation.get("sys_path", ())
        prepare({**source.preparation, "sys_path": with_added_path(path)})
        return pickle.loads(source.data)
    finally:
        _is_importing = False


def read_boot(type_: type[T]) -> tuple[T, tuple[int, ...]]:
    """Return the boot document and the descriptors that ``sys.argv`` names.

    Its first word is the title of the process, for ps and top.
    """
    words = sys.argv[2:]
    if not words or not all(word.isdecimal() for word in words):
        sys.exit("This module is started by a trio_supervisor controller; use `serve`.")
    document, *descriptors = map(int, words)
    sys.argv[1:] = []
    with os.fdopen(document, "rb") as file:
        file.seek(0)
        boot = pickle.load(file)  # trusted: written by our own parent
    assert isinstance(boot, type_)
    return boot, tuple(descriptors)
