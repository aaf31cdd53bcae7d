"""Run the lifespan of an ASGI application, under trio and asyncio.

Servers differ in what they do when it fails; here the application's own exception ends
the worker. Source: ASGI, "Lifespan Protocol", version 2.0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import anyio
from attrs import define, field

from trio_supervisor.contrib.traffic import AsgiApp, Message, Scope
from trio_supervisor.errors import SupervisorError

LifespanMode: TypeAlias = Literal["auto", "on", "off"]


@asynccontextmanager
async def open_lifespan(
    app: AsgiApp, mode: LifespanMode = "auto"
) -> AsyncIterator[dict[str, Any]]:
    """Start *app* up for the length of the block, and shut it down after it.

    The block gets the state that the application has filled.

    Args:
        mode: ``"auto"``: an application that raises before it has received
            ``lifespan.startup`` has no lifespan, which is not an error.

    Raises:
        Exception: what the application raised.
        SupervisorError: it reported that it failed, and raised nothing.
    """
    if mode == "off":
        yield {}
        return
    lifespan = _Lifespan(app, mode)
    error: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(lifespan.run)
        try:
            await lifespan.do("startup")
            yield lifespan.state
            await lifespan.do("shutdown")
        except Exception as exc:
            error = exc  # raised outside of the task group, which would wrap it
        group.cancel_scope.cancel()
    if error is not None:
        raise error


@define(eq=False)
class _Lifespan:
    _app: AsgiApp
    _mode: LifespanMode
    state: dict[str, Any] = field(factory=dict, init=False)
    _is_unsupported: bool = field(default=False, init=False)
    _has_received: bool = field(default=False, init=False)
    _asked: dict[str, anyio.Event] = field(init=False)
    _answered: dict[str, anyio.Event] = field(init=False)
    _failure: str | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)
    _over: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._asked = {what: anyio.Event() for what in ("startup", "shutdown")}
        self._answered = {what: anyio.Event() for what in ("startup", "shutdown")}

    async def run(self) -> None:
        """Call the application once."""
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:
            self._error = exc
        finally:
            self._over.set()
            for answered in self._answered.values():
                answered.set()

    async def do(self, what: str) -> None:
        """Have the application start up or shut down."""
        if self._is_unsupported:
            return
        self._asked[what].set()
        await self._answered[what].wait()
        if self._failure is not None:
            await self._over.wait()  # most raise after they have reported it
        if not self._has_received and self._mode == "auto":
            self._is_unsupported = self._over.is_set()
        if self._error is not None and not self._is_unsupported:
            raise self._error
        if self._failure is not None:
            raise SupervisorError(f"lifespan {what} failed: {self._failure}")

    async def _receive(self) -> Message:
        self._has_received = True
        for what, asked in self._asked.items():
            if not self._answered[what].is_set():
                await asked.wait()
                return {"type": f"lifespan.{what}"}
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    async def _send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        kind, _, outcome = message["type"].removeprefix("lifespan.").partition(".")
        if kind not in self._answered or outcome not in ("complete", "failed"):
            # It takes the lifespan for a request: it has none.
            self._has_received = False
            raise ValueError(f"unexpected message {message['type']!r} in a lifespan")
        if outcome == "failed":
            self._failure = str(message.get("message", ""))
        self._answered[kind].set()
