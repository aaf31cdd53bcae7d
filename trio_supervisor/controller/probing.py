"""Ask a command from outside how it is: by HTTP, a connection, another command."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import trio
from attrs import define, frozen

from trio_supervisor.controller.child import Child
from trio_supervisor.controller.plan import Prober
from trio_supervisor.policy.probing import Health, ProbeCounter
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.child import Process
from trio_supervisor.process.helper import open_helper
from trio_supervisor.spec import Command, Probe

logger = logging.getLogger(__name__)

# Of an answer only the first line counts: HTTP/1.1 200 OK.
_STATUS_LINE: Final = 1024
# Between two looks at how much of a timeout is left [s].
_SOONEST: Final = 0.05


def make_prober(command: Command, environment: Mapping[str, str]) -> Prober | None:
    """Return what asks processes of *command* how they are; None: nothing does."""
    probes = (command.startup, command.readiness, command.liveness)
    if not any(probes):
        return None
    return _Prober(command, environment)


@frozen
class _Target:
    """What is asked."""

    child: Child
    process: Process

    def spare(self) -> float:
        """Return how long it is spared although it did not answer [s]."""
        now = trio.current_time()
        return self.child.referee.spare(self.process.pid, now, 0.0)


@define(eq=False)
class _Prober:
    """As in Kubernetes: startup comes first, then readiness and liveness together."""

    _command: Command
    _environment: Mapping[str, str]

    async def __call__(self, child: Child, process: Process) -> None:
        command, target = self._command, _Target(child, process)
        if command.startup is not None:
            await self._until_started(target, command.startup)
        async with trio.open_nursery() as nursery:
            if command.readiness is None:
                child.seems_ready(True)
            else:
                nursery.start_soon(self._watch_readiness, target, command.readiness)
            if command.liveness is not None:
                nursery.start_soon(self._watch_liveness, target, command.liveness)

    async def _until_started(self, target: _Target, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes)
        await trio.sleep(probe.delay)
        while True:
            health = counter.add(await self._ask(target, probe))
            if health is Health.UNHEALTHY:
                if await self._is_spared(target, probe):
                    return
                self._complain(target.child, "startup", probe)
                target.child.seems_sick(Cause.STARTUP_TIMEOUT)
                await trio.sleep_forever()
            if health is Health.HEALTHY:
                return
            await trio.sleep(probe.interval)

    async def _watch_readiness(self, target: _Target, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes)
        await trio.sleep(probe.delay)
        while True:
            health = counter.add(await self._ask(target, probe))
            if health is not None:
                target.child.seems_ready(health is Health.HEALTHY)
            await trio.sleep(probe.interval)

    async def _watch_liveness(self, target: _Target, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes, Health.HEALTHY)
        target.child.seems_alive()
        await trio.sleep(probe.delay)
        while True:
            if is_alive := await self._ask(target, probe):
                target.child.seems_alive()
            if counter.add(is_alive) is Health.UNHEALTHY:
                if not await self._is_spared(target, probe):
                    self._complain(target.child, "liveness", probe)
                    target.child.seems_sick(Cause.UNHEALTHY)
                    await trio.sleep_forever()
                target.child.seems_alive()
                counter = ProbeCounter(probe.failures, probe.successes, Health.HEALTHY)
            await trio.sleep(probe.interval)

    async def _is_spared(self, target: _Target, probe: Probe) -> bool:
        """Ask again for as long as nothing is stopped: until it answers, or is."""
        while (wait := target.spare()) > 0:
            await trio.sleep(wait)
            if await self._ask(target, probe):
                return True
        return False

    async def _ask(self, target: _Target, probe: Probe) -> bool:
        """Return whether the answer is good, and came in time.

        The time counts in which the process could have answered, and we could have
        taken the answer in.
        """
        is_good = False
        left = target.child.referee.measure(target.process.pid)

        async def ask(scope: trio.CancelScope) -> None:
            nonlocal is_good
            is_good = await self._answer(probe)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            await trio.sleep(probe.timeout)
            while (more := left(probe.timeout)) > 0:  # noqa: ASYNC110 (time alone)
                await trio.sleep(max(more, _SOONEST))
            nursery.cancel_scope.cancel()
        return is_good

    async def _answer(self, probe: Probe) -> bool:
        match probe.kind:
            case "command":
                return await _run(probe.arguments, self._environment)
            case "tcp":
                return await _connect(probe.host, probe.port)
            case "http":
                return await _get(probe.host, probe.port, probe.path)

    def _complain(self, child: Child, which: str, probe: Probe) -> None:
        logger.warning(
            "%s: its %s probe %s failed %d times in a row",
            child.name,
            which,
            probe,
            probe.failures,
        )


async def _run(arguments: tuple[str, ...], environment: Mapping[str, str]) -> bool:
    try:
        async with open_helper(arguments, environment=environment) as process:
            return await process.wait() == 0
    except OSError as exc:
        logger.warning("a probe cannot be run: %s", exc)
        return False


async def _connect(host: str, port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True


async def _get(host: str, port: int, path: str) -> bool:
    """Return whether the answer's status is 200 to 399, as Kubernetes has it."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    name = f"[{host}]" if ":" in host else host
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: trio_supervisor\r\n"
        f"Accept: */*\r\nConnection: close\r\n\r\n"
    )
    async with stream:
        try:
            await stream.send_all(request.encode("ascii"))
            head = await _read_line(stream)
        except trio.BrokenResourceError:
            return False
    match head.split(b" ", 2):
        case [version, status, *_] if version.startswith(b"HTTP/"):
            return len(status) == 3 and status[:1] in (b"2", b"3")
    return False


async def _read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while b"\n" not in line and len(line) < _STATUS_LINE:
        data = await stream.receive_some(_STATUS_LINE)
        if not data:
            break
        line += data
    return line.partition(b"\n")[0]
