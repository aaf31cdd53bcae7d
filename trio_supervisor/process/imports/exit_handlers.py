"""Which of the exit handlers that an import registers run at the end of a worker.

A handler of the import may deliver what this process has collected (coverage, spans,
log records), or delete what all workers share (a directory, a pid file, a child
process). The first kind runs in each worker. The second runs once, when the fork
server ends: it is the process that has imported. They are told apart by whose they are:
those of libraries known to deliver, and of packages that have registered with
`os.register_at_fork`, and so know that they are in a child, run in each worker.
"""

from __future__ import annotations

import atexit
import functools
import os
import site
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

# Top-level packages whose handlers write or send what the process has collected, or
# look after its own threads and children only.
_DELIVERING: Final = frozenset(
    {
        "bugsnag",
        "cProfile",
        "concurrent",
        "coverage",
        "datadog",
        "ddtrace",
        "elasticapm",
        "faulthandler",
        "honeybadger",
        "langfuse",
        "logbook",
        "logfire",
        "logging",
        "loguru",
        "multiprocessing",
        "newrelic",
        "opentelemetry",
        "posthog",
        "prometheus_client",
        "pyinstrument",
        "pytest_cov",
        "rollbar",
        "scout_apm",
        "sentry_sdk",
        "slipcover",
        "statsd",
        "structlog",
        "threading",
        "viztracer",
        "watchtower",
        "weakref",
        "yappi",
    }
)


class _Handler(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class ExitHandlers:
    """The exit handlers and finalizers that were registered while recording."""

    def __init__(self) -> None:
        self._handlers: list[_Handler] = []
        self._fork_aware: set[str] = set()
        self._held: list[_Handler] = []
        self._finalizers: list[weakref.finalize[Any, Any]] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        """Take note of what is registered in the block."""
        register: Any = atexit.register
        unregister: Any = atexit.unregister
        at_fork: Any = os.register_at_fork

        @functools.wraps(register)
        def recording(function: Any, /, *arguments: Any, **options: Any) -> Any:
            register(function, *arguments, **options)
            self._handlers.append(_Handler(function, arguments, options))
            return function

        @functools.wraps(unregister)
        def forgetting(function: Any, /) -> None:
            unregister(function)
            self._handlers = [h for h in self._handlers if h.function != function]

        @functools.wraps(at_fork)
        def recording_fork(**hooks: Any) -> None:
            at_fork(**hooks)
            if (hook := hooks.get("after_in_child")) is not None:
                self._fork_aware.add(package_of(hook))

        _replace(recording, forgetting, recording_fork)
        try:
            yield
        finally:
            _replace(register, unregister, at_fork)

    def hold(self) -> None:
        """Keep back from this process's children what may destroy what they share."""
        for handler in self._handlers:
            if not self._delivers(handler.function):
                with suppress(Exception):  # it compares functions, which may object
                    atexit.unregister(handler.function)
                    self._held.append(handler)
        registry = getattr(weakref.finalize, "_registry", {})
        for finalizer in list(registry):
            if finalizer.atexit:
                finalizer.atexit = False
                self._finalizers.append(finalizer)

    def release(self) -> None:
        """Have what was kept back run at the end of this process."""
        for handler in self._held:
            atexit.register(handler.function, *handler.arguments, **handler.options)
        for finalizer in self._finalizers:
            finalizer.atexit = True

    @property
    def fork_aware(self) -> set[str]:
        """Packages that start again in a child what they need there."""
        # A module of the standard library looks after its locks only.
        return self._fork_aware - sys.stdlib_module_names

    def describe(self) -> list[str]:
        """Return those of the application's own code that no worker runs."""
        found = [
            f"{name} ({os.path.relpath(file)}, line {line})"
            for handler in self._held
            for name, file, line in _origin(handler.function)
            if not file.startswith(_library_directories())
        ]
        return list(dict.fromkeys(found))

    def _delivers(self, function: object) -> bool:
        package = package_of(function)
        return package in _DELIVERING or package in self._fork_aware


def _replace(register: Any, unregister: Any, at_fork: Any) -> None:
    atexit.register, atexit.unregister = register, unregister
    os.register_at_fork = at_fork


def package_of(function: object) -> str:
    """Return the top-level package that *function* belongs to."""
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None)
    if module is None and owner is not None:
        module = getattr(type(owner), "__module__", None)
    return str(module).partition(".")[0]


def _origin(function: object) -> Iterator[tuple[str, str, int]]:
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is not None:
        yield code.co_qualname, code.co_filename, code.co_firstlineno


def _library_directories() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_path(name) for name in names]
    paths += [*site.getsitepackages(), "<frozen"]
    return tuple(path for path in paths if path)
