"""Web applications without a framework, for real services in tests."""

from __future__ import annotations

from typing import Final

ASGI: Final = '''
import os
import sys

import anyio

async def app(scope, receive, send):
    """Answer with the id of this process; see the paths below."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/slow":
        await anyio.sleep(0.2)
    if scope["path"].startswith("/until/"):  # the test creates a file
        print("waiting", file=sys.stderr, flush=True)
        path = anyio.Path(scope["path"].removeprefix("/until/"))
        while not await path.exists():
            await anyio.sleep(0.01)
    if scope["path"] == "/broken":
        raise ValueError("broken on purpose")
    body = f"pid {os.getpid()}\\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''

WSGI: Final = '''
import os
import time

def app(environ, start_response):
    """Answer with the id of this process, after 0.2 s for /slow."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    body = f"pid {os.getpid()}\\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''


def service(declaration: str) -> str:
    """Return a service file with one service, such as ``asgi("web_app:app")``."""
    return (
        "from trio_supervisor import Application\n"
        "from trio_supervisor.contrib import asgi, wsgi\n"
        f"application = Application(services=[{declaration}])\n"
    )
