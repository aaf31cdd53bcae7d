"""Serve a Starlette application under trio. Needs ``pip install starlette
"hypercorn[trio]"``; run it by

trio-supervisor serve examples/web_starlette.py
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from trio_supervisor import Application
from trio_supervisor.contrib import asgi


async def home(_request: Request) -> PlainTextResponse:
    """Answer with the id of this process."""
    return PlainTextResponse(f"hello from Starlette, pid {os.getpid()}\n")


app = Starlette(routes=[Route("/", home)])

application = Application(
    services=[
        asgi(
            f"{__name__}:app",
            server="hypercorn",
            count=2,
            bind=f"tcp://127.0.0.1:{os.environ.get('PORT', 8000)}",
        )
    ]
)
