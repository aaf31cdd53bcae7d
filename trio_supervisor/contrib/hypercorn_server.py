"""Serve with hypercorn on inherited sockets, under trio."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from trio_supervisor.contrib.drain_times import DrainTimes
from trio_supervisor.contrib.serving import Serving
from trio_supervisor.process.sockets.accept import accept_all

_NAMES: Final = (
    *("accesslog", "access_log_format", "alt_svc_headers", "errorlog", "loglevel"),
    *("h11_max_incomplete_size", "h11_pass_raw_headers", "h2_max_concurrent_streams"),
    *("include_date_header", "include_server_header", "keep_alive_max_requests"),
    *("keep_alive_timeout", "max_app_queue_size", "read_timeout", "root_path"),
    *("server_names", "websocket_max_message_size", "websocket_ping_interval"),
)
OPTIONS: Final = frozenset(name for name in _NAMES if hasattr(Config, name))
"""Attributes of hypercorn's `Config` that a service may give. TLS is not among them:
hypercorn would open the sockets itself."""


def make_config(serving: Serving) -> Config:
    """Return hypercorn's configuration."""
    config = Config()
    for name, value in serving.server_options.items():
        setattr(config, name, value)
    return config


async def serve(serving: Serving) -> None:
    """Serve until asked to stop; then stop accepting and answer what was accepted.

    When hypercorn's own ``serve`` is asked to exit, it immediately closes connections
    on which no request has arrived yet. So this function accepts them itself.
    """
    context = WorkerContext(None)
    app: Any = serving.traffic
    handle = partial(
        _handle, ASGIWrapper(app), make_config(serving), context, ConnectionState({})
    )
    async with trio.open_nursery() as timers:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for each in serving.sockets:
                    listener = trio.SocketListener(trio.socket.from_stdlib_socket(each))
                    accepting.start_soon(
                        accept_all, listener, handle, connections, "hypercorn"
                    )
                await serving.started()
                await serving.until_stop()
                accepting.cancel_scope.cancel()
            # From now on other workers accept new connections.
            serving.traffic.is_draining = True
            timers.start_soon(_close, context, connections, serving.times)
        timers.cancel_scope.cancel()


async def _close(
    context: WorkerContext, connections: trio.Nursery, times: DrainTimes
) -> None:
    """Close idle connections after a while, and later those that are left."""
    await trio.sleep(times.linger)
    await context.terminated.set()
    await trio.sleep(times.grace)
    connections.cancel_scope.cancel()


async def _handle(
    app: ASGIWrapper,
    config: Config,
    context: WorkerContext,
    state: ConnectionState,
    stream: Any,
) -> None:
    await TCPServer(app, config, context, state, stream)
