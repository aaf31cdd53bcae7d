"""Decide which exit handlers registered by an import run when a worker exits.

Such a handler may flush data of its process (coverage, spans, log records) or delete
something that all workers share (a directory, a PID file, a child process). Handlers of
the first kind run in each worker, those of the second kind once, when the fork server
exits, since it is the process that ran the import. The package of a handler decides:
those of libraries known to flush, and of packages that have registered with
`os.register_at_fork` and so know that they run in a child, run in each worker.
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

# Top-level packages whose handlers flush or send data of the process, or end its own
# threads and children only.
_FLUSHING: Final = frozenset(
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


class _ExitHandler(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class ExitHandlers:
    """The exit handlers and finalizers that an import registers."""

    def __init__(self) -> None:
        self._handlers: list[_ExitHandler] = []
        self._fork_aware: set[str] = set()
        self._held: list[_ExitHandler] = []
        self._finalizers: list[weakref.finalize[Any, Any]] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        """Record what is registered within the block."""
        register: Any = atexit.register
        unregister: Any = atexit.unregister
        at_fork: Any = os.register_at_fork

        @functools.wraps(register)
        def recording(function: Any, /, *arguments: Any, **options: Any) -> Any:
            register(function, *arguments, **options)
            self._handlers.append(_ExitHandler(function, arguments, options))
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
        """Unregister handlers that may destroy what all workers share."""
        for handler in self._handlers:
            if not self._runs_in_workers(handler.function):
                with suppress(Exception):  # a function's own __eq__ may raise
                    atexit.unregister(handler.function)
                    self._held.append(handler)
        registry = getattr(weakref.finalize, "_registry", {})
        for finalizer in list(registry):
            if finalizer.atexit:
                finalizer.atexit = False
                self._finalizers.append(finalizer)

    def release(self) -> None:
        """Register the held handlers again, to run when this process exits."""
        for handler in self._held:
            atexit.register(handler.function, *handler.arguments, **handler.options)
        for finalizer in self._finalizers:
            finalizer.atexit = True

    @property
    def fork_aware(self) -> set[str]:
        """Packages that restart their threads in a forked child."""
        # Standard library modules only reset their locks.
        return self._fork_aware - sys.stdlib_module_names

    def describe(self) -> list[str]:
        """Return the held handlers that are defined in the application's own code."""
        found = [
            f"{name} ({os.path.relpath(file)}, line {line})"
            for handler in self._held
            for name, file, line in _origin(handler.function)
            if not file.startswith(_library_directories())
        ]
        return list(dict.fromkeys(found))

    def _runs_in_workers(self, function: object) -> bool:
        package = package_of(function)
        return package in _FLUSHING or package in self._fork_aware


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
