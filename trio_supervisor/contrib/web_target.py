"""The target of a web service: serve one application in one worker."""

from __future__ import annotations

import hashlib
import importlib
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from attrs import field, frozen

from trio_supervisor.application import Listen
from trio_supervisor.contrib.drain_times import DrainTimes
from trio_supervisor.contrib.find_app import make_app, split_name
from trio_supervisor.contrib.lifespan import LifespanMode, open_lifespan
from trio_supervisor.contrib.request_limit import request_limit
from trio_supervisor.contrib.serving import Serving
from trio_supervisor.contrib.traffic import Traffic
from trio_supervisor.contrib.web_metrics import RequestCounts
from trio_supervisor.errors import SpecError
from trio_supervisor.worker.instance import Worker

Server: TypeAlias = Literal["uvicorn", "hypercorn"]

BACKENDS: Final[Mapping[str, Literal["trio", "asyncio"]]] = MappingProxyType(
    {"uvicorn": "asyncio", "hypercorn": "trio"}
)
"""The servers, each with the backend that runs it."""


# Not slotted: the names of a function are attributes of each object.
@frozen(kw_only=True, slots=False)
class WebTarget:
    """Serves an application until the worker is asked to stop."""

    app: str
    """Name of the application."""
    server: Server
    lifespan: LifespanMode
    sockets: Mapping[str, Listen] = field(hash=False)
    """Its sockets among those of the service, by name."""
    max_requests: int | None
    max_requests_jitter: int
    stop_timeout: float
    threads: int | None = None
    """Threads for a WSGI application; None: it is an ASGI application."""
    server_options: Mapping[str, Any] = field(factory=dict, hash=False)

    def __attrs_post_init__(self) -> None:
        # As a function of the application's module: its files are the service's code,
        # by which a reload decides whether the service has changed.
        module, attribute, _ = split_name(self.app)
        object.__setattr__(self, "__module__", module)
        object.__setattr__(self, "__qualname__", f"{attribute} {self._text()}")

    def _text(self) -> str:
        kind = "asgi" if self.threads is None else f"wsgi, threads={self.threads}"
        words = [kind, self.server, f"lifespan={self.lifespan}"]
        if self.max_requests is not None:
            words.append(f"max_requests={self.max_requests}")
            words.append(f"max_requests_jitter={self.max_requests_jitter}")
        if self.server_options:
            # No values: one may be a password. The log shows this text.
            values = repr(sorted(self.server_options.items())).encode()
            digest = hashlib.sha256(values).hexdigest()[:8]
            words.append(f"server_options={'/'.join(self.server_options)} {digest}")
        return f"({', '.join(words)})"

    def limit(self, u: float) -> int | None:
        """Return the limit of one process [requests]; None: it has none.

        Args:
            u: A random number from [0, 1), drawn for each process.
        """
        if self.max_requests is None:
            return None
        return request_limit(self.max_requests, self.max_requests_jitter, u)

    async def __call__(self, worker: Worker) -> None:
        """Serve the application in *worker*."""
        app = make_app(self.app)
        if self.threads is not None:
            app = import_a2wsgi().WSGIMiddleware(app, workers=self.threads)
        limit = self.limit(random.random())
        async with open_lifespan(app, self.lifespan) as state:
            traffic = Traffic(app, RequestCounts(worker.metrics), limit, state)
            serving = Serving(
                worker=worker,
                traffic=traffic,
                sockets=[worker.sockets[name] for name in self.sockets],
                listens=list(self.sockets.values()),
                times=DrainTimes.within(self.stop_timeout),
                server_options=self.server_options,
                limit=limit,
            )
            await import_server(self.server).serve(serving)


def import_server(server: Server) -> Any:
    """Import the module that runs *server*.

    Raises:
        SpecError: the server is not installed.
    """
    extra = "asgi" if server == "uvicorn" else server
    return _imported(f"trio_supervisor.contrib.{server}_server", extra)


def import_a2wsgi() -> Any:
    """Import what makes an ASGI application of a WSGI application.

    Raises:
        SpecError: it is not installed.
    """
    return _imported("a2wsgi", "wsgi")


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        problem = f"{exc.name} is not installed; pip install 'trio_supervisor[{extra}]'"
        raise SpecError("server", problem) from None
