"""What a child that runs this package is told at its start, and how it gets it.

The document is pickled into an anonymous file whose descriptor the child inherits: it
comes from nobody but its own parent, and can be of any size.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from attrs import frozen

from trio_supervisor.application import Backend
from trio_supervisor.application.target import unbound
from trio_supervisor.errors import PlatformError, SpecError
from trio_supervisor.process.spawn.code_source import Pickled, Reference

T = TypeVar("T")

NO_MONITORS: Final = Pickled({}, pickle.dumps(()))
"""The source of a supervisor that imports nothing of the application."""
_is_importing = False
"""Whether a child is making its modules like its parent's."""


@frozen(kw_only=True)
class WorkerBoot:
    """All that a worker process is told."""

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
    """Where its controller works. A forked worker that finds itself somewhere else was
    taken there by the import, and stays, as it would with an import of its own."""
    socket_path: str
    notify_path: str
    stop_signal: signal.Signals
    stop_timeout: float
    heartbeat: float | None
    """Interval between heartbeats [s]."""
    switch_interval: float | None
    generation: int = 1
    has_channel: bool = False
    """Whether its notification socket and its pulse come after the lifeline."""
    has_black_box: bool = False
    """Whether the descriptor of one comes after that."""
    sockets: tuple[str, ...] = ()
    """The names of the descriptors that come after that."""
    head_start: float = 0.003
    """What its own code has for itself before its agent begins [s]."""


@frozen(kw_only=True)
class SupervisorBoot:
    """All that the supervisor process is told."""

    source: Reference | Pickled
    """The application, or its monitors alone."""
    incarnation: int
    notify_path: str
    heartbeat: float | None
    controller_pid: int
    log_format: str
    has_channel: bool = False
    """Whether its notification socket and its pulse come after the others."""
    owns_process: bool = False
    """Whether the controller's process has no children but the controller's."""


def pickle_source(field: str, value: object) -> Pickled:
    """Pickle *value* for a child.

    Raises:
        SpecError: it refers to something that a child cannot import: a lambda, a
            function within a function, an open file …
    """
    # Imported here: the standard library's own way to make a child's modules like its
    # parent's costs 20 ms, and `serve` does not need it.
    from multiprocessing.spawn import get_preparation_data

    try:
        data = pickle.dumps(value)
    except Exception as exc:  # pickle raises whatever a __reduce__ raises
        raise SpecError(
            field,
            f"cannot be imported by a process of its own ({_nameless(value) or exc}); "
            f"define it at the top level of a module",
        ) from exc
    if (problem := _unreachable(value)) is not None:
        raise SpecError(field, problem)
    preparation = dict(get_preparation_data("trio_supervisor"))
    preparation.pop("authkey", None)  # a secret that no child of ours needs
    preparation.pop("start_method", None)
    return Pickled(preparation, data)


def _nameless(value: object) -> str:
    """Return why pickle cannot name the function *value*, in words."""
    name = str(getattr(unbound(value), "__qualname__", ""))
    if name.endswith("<lambda>"):
        return "a lambda has no name"
    if "<locals>" in name:
        outer, _, inner = name.rpartition(".<locals>.")
        return f"{inner} is defined within {outer}()"
    return ""


def _unreachable(value: object) -> str | None:
    """Return why no child finds the module of the function *value*, if so."""
    inner = unbound(value)
    main = sys.modules.get("__main__")
    has_origin = getattr(main, "__spec__", None) or os.path.exists(
        getattr(main, "__file__", None) or ""
    )
    if getattr(inner, "__module__", None) != "__main__" or has_origin:
        return None
    return (
        f"{getattr(inner, '__qualname__', 'it')} is defined in __main__, which is no "
        f"file (python -c, standard input, a REPL), so no other process can import it; "
        f"define it in a module"
    )


def check_not_importing() -> None:
    """Refuse to start a controller in a child that only imports a program's modules.

    Raises:
        PlatformError: the program's main module is not guarded.
    """
    if _is_importing:
        raise PlatformError(
            "a controller is opened while a child process imports the main module; "
            'put what starts it under: if __name__ == "__main__":'
        )


def with_added_path(path: Sequence[str]) -> list[str]:
    """Return *path* after what PYTHONPATH has in this process, and that has not."""
    wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    added = [os.path.abspath(entry) for entry in wanted if entry]
    return [*(entry for entry in added if entry not in path), *path]


def unpickle_source(source: Pickled) -> Any:
    """Make this process's modules like its parent's, and return the object."""
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
    """Return the document and the descriptors that this program's arguments name."""
    words = sys.argv[1:]
    if not words or not all(word.isdecimal() for word in words):
        sys.exit("This module is started by a trio_supervisor controller, not by hand.")
    document, *descriptors = map(int, words)
    sys.argv[1:] = []
    with os.fdopen(document, "rb") as file:
        file.seek(0)
        boot = pickle.load(file)  # written by our own parent
    assert isinstance(boot, type_)
    return boot, tuple(descriptors)
