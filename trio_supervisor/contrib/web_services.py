"""Declare services that serve web applications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from trio_supervisor.application import Autoscale, Listen, Service, checks
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.contrib.find_app import find_app
from trio_supervisor.contrib.lifespan import LifespanMode
from trio_supervisor.contrib.request_limit import default_jitter
from trio_supervisor.contrib.web_metrics import with_web_metrics
from trio_supervisor.contrib.web_target import (
    BACKENDS,
    Server,
    WebTarget,
    import_a2wsgi,
    import_server,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import Metrics

Bind: TypeAlias = str | Listen | Sequence[str | Listen]

DEFAULT_BIND: Final = "tcp://127.0.0.1:8000"
STOP_TIMEOUT: Final = 30.0
"""Default of ``stop_timeout`` [s]: most requests end within that time."""
_THREADS: Final = 10
_MOST_THREADS: Final = 1000
_LIFESPANS: Final = ("auto", "on", "off")
# What these servers cannot do, rather than that they are unknown.
_REFUSED: Final = {
    "granian": "granian opens its own listening socket and cannot inherit one, so a "
    "reload would refuse connections; use 'uvicorn' or 'hypercorn'",
    "gunicorn": "gunicorn manages processes itself; use 'uvicorn' or 'hypercorn'",
}


def asgi(
    app: str,
    *,
    name: str = "web",
    bind: Bind = DEFAULT_BIND,
    server: Server = "uvicorn",
    count: int | Autoscale = 1,
    max_requests: int | None = None,
    max_requests_jitter: int | None = None,
    lifespan: LifespanMode = "auto",
    stop_timeout: float = STOP_TIMEOUT,
    metrics: Metrics | None = None,
    server_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Service:
    """Return a service that serves an ASGI application.

    The application is imported here, where the service file is imported: once, in the
    fork server, so that workers share its memory. Example::

        asgi("shop.web:app", count=4, max_requests=10_000)

    Args:
        app: ``"package.module:attribute"``, or ``"package.module:factory()"`` for a
            function that each worker calls for its own application.
        name: Name of the service.
        bind: ``tcp://HOST:PORT``, ``unix://PATH`` or a `Listen`, or several of them.
        server: ``"uvicorn"`` (asyncio) or ``"hypercorn"`` (trio).
        count: Number of workers, or an `Autoscale`, for example on the metric
            ``http_requests_in_flight``.
        max_requests: Number of requests after which a worker is replaced.
        max_requests_jitter: At most how many more, drawn for each process; a tenth of
            *max_requests* by default.
        lifespan: Whether the application has a lifespan; ``"auto"`` finds out.
        stop_timeout: Time for a drain, and the application's shutdown [s].
        metrics: Further metrics of the service.
        server_options: Options of `uvicorn.Config`, or attributes of hypercorn's.
        options: Further options of `Service`.

    Raises:
        SpecError: the application cannot be imported, the server is not installed, or
            the value of an option is not valid; the message names it.
    """
    if server in _REFUSED:
        raise SpecError("server", _REFUSED[server])
    checks.one_of(server, "server", choices=tuple(BACKENDS))
    find_app(app)
    return _service(
        app,
        name=name,
        bind=bind,
        server=server,
        count=count,
        limits=_request_limits(max_requests, max_requests_jitter),
        lifespan=checks.one_of(lifespan, "lifespan", choices=_LIFESPANS),
        stop_timeout=stop_timeout,
        metrics=metrics,
        server_options=server_options,
        options=options,
    )


def wsgi(
    app: str,
    *,
    name: str = "web",
    bind: Bind = DEFAULT_BIND,
    count: int | Autoscale = 1,
    threads: int = _THREADS,
    max_requests: int | None = None,
    max_requests_jitter: int | None = None,
    stop_timeout: float = STOP_TIMEOUT,
    metrics: Metrics | None = None,
    server_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Service:
    """Return a service that serves a WSGI application, by uvicorn and a2wsgi.

    Example::

        wsgi("shop.wsgi:application", count=2, threads=20)

    Args:
        threads: Maximum number of requests that a worker handles at the same time.
        app, name, bind, count, max_requests, max_requests_jitter, stop_timeout,
            metrics, server_options, options: As for `asgi`.

    Raises:
        SpecError: as for `asgi`.
    """
    threads = checks.integer(threads, "threads", least=1, most=_MOST_THREADS)
    find_app(app)
    import_a2wsgi()
    return _service(
        app,
        name=name,
        bind=bind,
        server="uvicorn",
        count=count,
        limits=_request_limits(max_requests, max_requests_jitter),
        lifespan="off",
        stop_timeout=stop_timeout,
        metrics=metrics,
        server_options=server_options,
        options=options,
        threads=threads,
    )


def _service(
    app: str,
    *,
    name: str,
    bind: Bind,
    server: Server,
    count: int | Autoscale,
    limits: tuple[int | None, int],
    lifespan: LifespanMode,
    stop_timeout: float,
    metrics: Metrics | None,
    server_options: Mapping[str, Any] | None,
    options: dict[str, Any],
    threads: int | None = None,
) -> Service:
    module = import_server(server)  # here: it is shared by the workers too
    own = checks.dictionary(server_options, "server_options")
    _check_server_options(module, own)
    for given in ("target", "backend"):
        if given in options:
            raise SpecError(given, "is chosen by the server of a web service")
    sockets = _sockets(bind)
    target = WebTarget(
        app=app,
        server=server,
        lifespan=lifespan,
        sockets=sockets,
        max_requests=limits[0],
        max_requests_jitter=limits[1],
        stop_timeout=checks.seconds(stop_timeout, "stop_timeout", least=0),
        threads=threads,
        server_options=own,
    )
    more = checks.dictionary(options.pop("sockets", None), "sockets")
    return Service(
        name,
        target,
        backend=BACKENDS[server],
        count=count,
        stop_timeout=stop_timeout,
        metrics=with_web_metrics(checks.metrics(metrics, "metrics")),
        sockets={**more, **sockets},
        **options,
    )


def _check_server_options(module: Any, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in module.OPTIONS:
            hint = did_you_mean(name, module.OPTIONS)
            problem = f"{checks.shown(name)} is unknown, or set by trio_supervisor"
            raise SpecError("server_options", f"{problem}{hint}")


def _request_limits(
    max_requests: int | None, jitter: int | None
) -> tuple[int | None, int]:
    most = checks.integer_or_none(max_requests, "max_requests", least=1)
    extra = checks.integer_or_none(jitter, "max_requests_jitter", least=0)
    if most is None:
        if extra:
            raise SpecError("max_requests_jitter", "needs max_requests")
        return None, 0
    return most, default_jitter(most) if extra is None else extra


def _sockets(bind: Bind) -> dict[str, Listen]:
    """Return the sockets of *bind* by name: ``http``, ``http2`` and so on."""
    several = [bind] if isinstance(bind, str | Listen) else checks.items(bind, "bind")
    if not several:
        raise SpecError("bind", "expected at least one address")
    found = {}
    for index, each in enumerate(several, 1):
        key = "http" if index == 1 else f"http{index}"
        try:
            found[key] = each if isinstance(each, Listen) else Listen(each)
        except SpecError as exc:
            raise SpecError("bind", exc.problem) from None
    return found
