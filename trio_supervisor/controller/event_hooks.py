"""Tell programs and web hooks of events: beside everything else, never in its way."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson
import trio
from attrs import define, field

from trio_supervisor.application import Application
from trio_supervisor.application.event_hooks import EventHook, Exec, Webhook
from trio_supervisor.controller.event_log import EventLog, EventSubscription
from trio_supervisor.policy.addressing import is_named
from trio_supervisor.process.child import describe_exit
from trio_supervisor.process.spawn.environment import unsupervised_environment
from trio_supervisor.process.spawn.helper import open_helper
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.json_tree import Object

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
_FIRST_DELAY: Final = 1.0
"""Before the second attempt; doubles with each one after it [s]."""
_LEVELS: Final[Mapping[str, int]] = {"info": 1, "warning": 2, "error": 3, "critical": 4}
_MINUTE: Final = 60.0
# How long the end of a controller waits for the last events to be told [s].
_LAST_WITHIN: Final = 3.0
# Far below what the kernel allows for one variable.
_MOST_TEXT: Final = 32 * 1024


class HookOwner(Protocol):
    """What is asked of the controller."""

    event_log: EventLog

    @property
    def application(self) -> Application: ...
    async def wait_take_over(self) -> None: ...


@define(eq=False)
class EventHooks:
    """All hooks of the application; `run` tells them."""

    _owner: HookOwner
    _hooks: tuple[Exec | Webhook, ...] = field(init=False)
    _tellers: list[_Teller] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._learn()  # now, so that not even the first event is missed

    def _learn(self) -> None:
        log, self._hooks = self._owner.event_log, self._owner.application.on_event
        self._tellers = [_Teller(hook, log.subscribe()) for hook in self._hooks]

    async def run(self) -> None:
        """Tell the hooks of the current generation, until cancelled."""
        while True:
            async with open_nursery() as nursery:
                for teller in self._tellers:
                    nursery.start_soon(teller.run)
                while self._hooks == self._owner.application.on_event:
                    await self._owner.wait_take_over()
                nursery.cancel_scope.cancel()
            self._learn()

    async def finish(self) -> None:
        """Wait until the events so far have been told, for up to three seconds."""
        with trio.move_on_after(_LAST_WITHIN):
            for teller in self._tellers:
                await teller.wait_idle()


@define(eq=False)
class _Teller:
    """Tells one hook, one event after another."""

    _hook: Exec | Webhook
    _subscription: EventSubscription
    _told: deque[float] = field(factory=deque, init=False)
    """When it received events within the last minute."""
    _left_out: int = field(default=0, init=False)
    _is_idle: bool = field(default=False, init=False)
    _waiting: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    async def run(self) -> None:
        with self._subscription:
            while True:
                if not self._subscription.has_entries:
                    self._is_idle = True
                    self._waiting.unpark_all()
                entries, missed = await self._subscription.receive()
                self._is_idle = False
                self._left_out += missed
                for entry in entries:
                    if concerns(self._hook, entry):
                        await self._tell(entry)

    async def wait_idle(self) -> None:
        """Wait until there is nothing left to tell."""
        await trio.lowlevel.checkpoint()
        while self._subscription.has_entries or not self._is_idle:
            await self._waiting.park()

    async def _tell(self, entry: Mapping[str, Any]) -> None:
        now = trio.current_time()
        while self._told and self._told[0] < now - _MINUTE:
            self._told.popleft()
        if len(self._told) >= self._hook.most_per_minute:
            self._left_out += 1
            return
        self._told.append(now)
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            what = "most_per_minute"
            logger.warning("%s: %d events left out (%s)", _shown(self), left_out, what)
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await trio.sleep(_FIRST_DELAY * 2 ** (attempt - 1))
            with trio.move_on_after(self._hook.timeout) as scope:
                problem = await self._attempt(entry)
            if scope.cancelled_caught:
                problem = f"no answer within {self._hook.timeout:g} s (timeout)"
            if not problem:
                return
        logger.error(
            "%s failed %d times: %s; event %s of %s is not told",
            *(_shown(self), _ATTEMPTS, problem, entry["event"], entry["name"]),
        )

    async def _attempt(self, entry: Mapping[str, Any]) -> str:
        """Tell the hook once; return what went wrong, empty: nothing."""
        try:
            if isinstance(self._hook, Exec):
                return await _run(self._hook, entry)
            body = orjson.dumps(entry, default=str)
            # A controller without web hooks needs nothing of HTTP.
            from trio_supervisor.controller.webhook import post_event

            post = post_event, self._hook.url, body, self._hook.timeout
            return await run_in_thread(*post, abandon_on_cancel=True)
        except OSError as exc:
            return exc.strerror or str(exc)


def concerns(hook: EventHook, entry: Mapping[str, Any]) -> bool:
    """Return whether *hook* receives an entry of the event log."""
    if hook.types:
        if entry["event"] not in hook.types:
            return False
    elif _LEVELS.get(str(entry["level"]), 0) < _LEVELS[hook.level]:
        return False
    return not hook.names or is_named(str(entry["name"]), hook.names)


async def _run(hook: Exec, entry: Mapping[str, Any]) -> str:
    environment = {
        **unsupervised_environment(os.environ),
        "EVENT": _json_of(entry),
        "EVENT_TYPE": str(entry["event"]),
        "EVENT_NAME": str(entry["name"]),
        "EVENT_MESSAGE": str(entry["message"]).replace("\0", "")[:_MOST_TEXT],
    }
    async with open_helper(hook.arguments, environment=environment) as helper:
        code = await helper.wait()
    return "" if code == 0 else describe_exit(code)


def _json_of(entry: Mapping[str, Any]) -> str:
    """Return *entry* as JSON; long texts in it are cut."""
    short: Object = {
        name: value[:_MOST_TEXT] if isinstance(value, str) else value
        for name, value in entry.items()
    }
    text = orjson.dumps(short, default=str).decode()
    if len(text) > 3 * _MOST_TEXT:
        kept = ("time", "event", "name", "message", "level")
        text = orjson.dumps({name: short[name] for name in kept}).decode()
    return text


def _shown(teller: _Teller) -> str:
    """Return what names the hook in the log; not its path, which is often a secret."""
    hook = teller._hook
    if isinstance(hook, Webhook):
        return f"webhook {'/'.join(hook.url.split('/')[:3])}"
    return f"event hook {hook.arguments[0]}"
