"""Ask a command from outside how it is: by HTTP, a connection, another command."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import trio
from attrs import define

from trio_supervisor.controller.child import Child
from trio_supervisor.controller.plan import Prober
from trio_supervisor.policy.probing import Health, ProbeCounter
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.child import Process
from trio_supervisor.process.exec import spawn_exec
from trio_supervisor.process.stopping import StopPlan, stop
from trio_supervisor.spec import Command, Probe

logger = logging.getLogger(__name__)

# Of an answer only the first line counts: HTTP/1.1 200 OK.
_STATUS_LINE: Final = 1024
_AT_ONCE: Final = StopPlan(timeout=0.0)


def make_prober(command: Command, environment: Mapping[str, str]) -> Prober | None:
    """Return what asks processes of *command* how they are; None: nothing does."""
    probes = (command.startup, command.readiness, command.liveness)
    if not any(probes):
        return None
    return _Prober(command, environment)


@define(eq=False)
class _Prober:
    """As in Kubernetes: startup comes first, then readiness and liveness together."""

    _command: Command
    _environment: Mapping[str, str]

    async def __call__(self, child: Child, process: Process) -> None:
        command = self._command
        if command.startup is not None:
            await self._until_started(child, command.startup)
        async with trio.open_nursery() as nursery:
            if command.readiness is None:
                child.seems_ready(True)
            else:
                nursery.start_soon(self._watch_readiness, child, command.readiness)
            if command.liveness is not None:
                nursery.start_soon(self._watch_liveness, child, command.liveness)

    async def _until_started(self, child: Child, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes)
        await trio.sleep(probe.delay)
        while True:
            health = counter.add(await self._ask(probe))
            if health is Health.HEALTHY:
                return
            if health is Health.UNHEALTHY:
                self._complain(child, "startup", probe)
                child.seems_sick(Cause.STARTUP_TIMEOUT)
                await trio.sleep_forever()
            await trio.sleep(probe.interval)

    async def _watch_readiness(self, child: Child, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes)
        await trio.sleep(probe.delay)
        while True:
            health = counter.add(await self._ask(probe))
            if health is not None:
                child.seems_ready(health is Health.HEALTHY)
            await trio.sleep(probe.interval)

    async def _watch_liveness(self, child: Child, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes, Health.HEALTHY)
        child.seems_alive()
        await trio.sleep(probe.delay)
        while True:
            if is_alive := await self._ask(probe):
                child.seems_alive()
            if counter.add(is_alive) is Health.UNHEALTHY:
                self._complain(child, "liveness", probe)
                child.seems_sick(Cause.UNHEALTHY)
                await trio.sleep_forever()
            await trio.sleep(probe.interval)

    async def _ask(self, probe: Probe) -> bool:
        """Return whether the answer is good, and came in time."""
        with trio.move_on_after(probe.timeout):
            match probe.kind:
                case "command":
                    return await _run(probe.arguments, self._environment)
                case "tcp":
                    return await _connect(probe.host, probe.port)
                case "http":
                    return await _get(probe.host, probe.port, probe.path)
        return False

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
        process = await spawn_exec(arguments, environment=environment)
    except OSError as exc:
        logger.warning("a probe cannot be run: %s", exc)
        return False
    try:
        return await process.wait() == 0
    finally:
        await stop(process, _AT_ONCE)
        process.close()


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
