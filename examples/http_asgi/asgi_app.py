"""An ASGI application that does not depend on trio_supervisor."""

import asyncio
import os
from typing import Any


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Answer with the id of this process, after 0.2 s for ``/slow``."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    body = f"pid {os.getpid()}\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
