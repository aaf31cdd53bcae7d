"""Whether the application is there: for who waits for it, and for who probes it."""

from __future__ import annotations

from typing import Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import AllWorkersReady, Event
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.supervisor_link import SupervisorLink
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing

# Where even the supervisor has been gone for so long, something is wrong [s].
_ALONE_FOR: Final = 60.0


class ReadinessOwner(Protocol):
    """What is asked of the controller."""

    link: SupervisorLink

    @property
    def generation(self) -> Generation: ...
    @property
    def is_stopping(self) -> bool: ...
    def on_event(self, event: Event) -> None: ...


@define(eq=False)
class Readiness:
    """Which workers of the generation in charge are not ready."""

    _owner: ReadinessOwner
    _missing: set[Child] = field(factory=set, init=False)
    _has_been: bool = field(default=False, init=False)
    """Whether all were ready once."""
    _began: float = field(factory=trio.current_time, init=False)
    _alone_since: float | None = field(factory=trio.current_time, init=False)
    """Since when there is no supervisor."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    """Set, and replaced, when something changes."""

    def expect(self, child: Child) -> None:
        """Wait for *child* too, which is about to be started."""
        self._missing.add(child)

    def dismiss(self, child: Child) -> None:
        """Wait for *child* no more: it is about to be ended for good."""
        self._missing.discard(child)

    def count_again(self) -> None:
        """Look at the workers of a generation that has just taken over."""
        children = self._owner.generation.children
        self._missing = {child for child in children if not _is_settled(child)}

    def on_change(self, child: Child) -> None:
        """Look at *child*, of the generation in charge, again."""
        if _is_settled(child):
            self._missing.discard(child)
        else:
            self._missing.add(child)
        if not self._missing or child.state is State.FAILED:
            self.tell()

    def on_connected(self, *, is_connected: bool) -> None:
        """Note that a supervisor has come, or has gone."""
        self._alone_since = None if is_connected else trio.current_time()
        if is_connected:
            self.tell()

    def tell(self) -> None:
        """Have everybody who waits look again."""
        news, self._news = self._news, trio.Event()
        news.set()
        if self._has_been or self._missing or not self._owner.link.is_connected:
            return
        if self._owner.is_stopping:
            return  # what is stopped is not waited for, and is not ready
        self._has_been = True
        children = list(self._owner.generation.children)
        absent = [child for child in children if not child.is_stable]
        self._owner.on_event(
            AllWorkersReady(
                name="controller",
                workers=len(children) - len(absent),
                absent=tuple(f"{c.name} ({_absence_of(c)})" for c in absent),
                seconds=trio.current_time() - self._began,
            )
        )

    async def wait_news(self) -> None:
        """Wait for the next `tell`."""
        await self._news.wait()

    async def wait(self) -> None:
        """See `Controller.wait_ready`."""
        while self._missing or not self._owner.link.is_connected:
            for child in self._missing:
                if child.state is State.FAILED:
                    raise UnavailableError(f"{child.name} failed: {child.last_exit}")
            await self.wait_news()

    def health(self, kind: str) -> tuple[bool, dict[str, object]]:
        """See `Controller.health`."""
        if kind == "startup":
            late = sorted(self._missing, key=lambda child: child.name)
            details: dict[str, object] = {"not_ready": [child.name for child in late]}
            if late:
                details["why"] = {child.name: _why(child) for child in late}
            return self._has_been, details
        if kind == "liveness":
            since = self._alone_since
            alone = 0.0 if since is None else trio.current_time() - since
            is_alive = alone < _ALONE_FOR or not self._has_been
            return is_alive, {"without_supervisor": round(alone, 3)}
        missing = [
            name
            for name, unit in self._owner.generation.units.items()
            if any(map(_is_missed, unit.children))
            and not any(map(_is_serving, unit.children))
        ]
        is_stopping = self._owner.is_stopping
        is_ready = self._has_been and not missing and not is_stopping
        details = {"not_ready": missing, "stopping": is_stopping}
        if missing:
            units = self._owner.generation.units
            details["why"] = {
                child.name: _why(child)
                for name in missing
                for child in units[name].children
                if _is_missed(child)
            }
        return is_ready, details


def _is_missed(child: Child) -> bool:
    """Whether *child* should be there all the time."""
    return child.is_wanted and not child.plan.is_scheduled


def _is_serving(child: Child) -> bool:
    """Whether *child* is ready; one that crashed is not until it has stayed up."""
    return child.state is State.READY and (child.is_stable or not child.crashes)


def _is_settled(child: Child) -> bool:
    """Whether *child* is up; one that is stopped or has exited is not waited for."""
    is_settled = child.is_stable or child.state is State.STOPPED
    return is_settled or child.plan.is_scheduled


def _absence_of(child: Child) -> str:
    if child.plan.is_scheduled:
        return "scheduled"
    is_done = child.standing is Standing.EXITED_OK
    return f"finished, {child.last_exit}" if is_done else child.state.value


def _why(child: Child) -> str:
    """Return why *child* is not ready; nothing that it has printed, which is no news
    for everyone who may ask for the health.
    """
    if child.waiting_for:
        return f"waiting for {child.waiting_for}"
    has_ended = child.state is State.BACKOFF or child.crashes > 1
    return f"{child.state.value}, {child.trouble}" if has_ended else child.state.value
