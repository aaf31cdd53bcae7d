"""Serve a FastAPI application. Needs ``pip install fastapi uvicorn``; run it by

trio-supervisor serve examples/web_fastapi.py
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from trio_supervisor import Application
from trio_supervisor.contrib import asgi


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
    """Open what requests need: the worker is ready after it."""
    yield {"greeting": "hello from FastAPI"}


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def home(request: Request) -> dict[str, str | int]:
    """Answer with the id of this process."""
    return {"greeting": request.state.greeting, "pid": os.getpid()}


application = Application(
    services=[
        asgi(
            f"{__name__}:app",
            count=2,
            bind=f"tcp://127.0.0.1:{os.environ.get('PORT', 8000)}",
        )
    ]
)
