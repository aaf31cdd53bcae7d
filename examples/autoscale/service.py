"""Have the load decide how many workers serve HTTP.

This example needs ``pip install "hypercorn[trio]"``. Put it under load, for example
with ``wrk -c 30 -d 60 http://127.0.0.1:8000/``, and watch ``status --watch``: each
worker bears ten requests at a time, so at seven in each, which is 70 %, more workers
are started.
"""

import os
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_http

from trio_supervisor import (
    Application,
    Autoscale,
    Counter,
    Gauge,
    Listen,
    Metrics,
    Service,
    Worker,
)


async def answer(worker: Worker, scope: Any, _receive: Any, send: Any) -> None:
    """Answer with the id of this process, after 0.1 s; ASGI, but for *worker*."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    with worker.metrics.requests_active.track():
        await trio.sleep(0.1)
        body = f"pid {os.getpid()}\n".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body})
    worker.metrics.requests_total.inc()


async def serve(worker: Worker) -> None:
    """Serve until asked to stop; then answer what was accepted."""
    config = Config()
    config.bind = [f"fd://{os.dup(worker.sockets['http'].fileno())}"]
    host, port = worker.sockets["http"].getsockname()[:2]
    await worker.ready()
    await worker.status(f"http://{host}:{port}/")
    await serve_http(
        partial(answer, worker), config, shutdown_trigger=worker.stopping.wait
    )


application = Application(
    name="autoscale",
    services=[
        Service(
            "web",
            serve,
            count=Autoscale(
                minimum=1,
                maximum=8,
                metric="requests_active",
                per_worker=10,
                interval=1,
                scale_down_after=10,
            ),
            metrics=Metrics(
                requests_active=Gauge("Requests in progress."),
                requests_total=Counter("Requests answered."),
            ),
            sockets={"http": Listen(f"tcp://127.0.0.1:{os.environ.get('PORT', 8000)}")},
        )
    ],
)
